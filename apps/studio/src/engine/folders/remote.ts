/** A folder on a web server as a Folder: weights are read in ranges, so that no more comes than is needed. */

import { LowbitError } from '@lowbit/core'
import type { Folder } from '@lowbit/formats'
import { httpSource } from '@lowbit/safetensors'
import { refuse } from './picked.ts'

/** A web server has no listing, so the names that a model's files usually have are asked for. */
const USUAL = [
  'config.json',
  'model.safetensors',
  'model.safetensors.index.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'generation_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'quantization-report.json',
]

/** @param names the files, where they are known; otherwise those with usual names are looked for */
export function remoteFolder(base: string, names?: readonly string[]): Folder {
  const root = folderUrl(base)
  const at = (name: string): URL => new URL(encodeURIComponent(name), root)
  let listed: Promise<string[]> | undefined
  const list = async (): Promise<string[]> => {
    if (names) return [...names]
    const found = await Promise.all(
      USUAL.map(async (name) => ((await exists(at(name))) ? [name] : [])),
    )
    return found.flat()
  }
  return {
    location: root.href,
    list: () => (listed ??= list()),
    source: (name) => httpSource(at(name)),
    read: async (name) => new Uint8Array(await (await get(at(name))).arrayBuffer()),
    write: refuse,
    remove: refuse,
  }
}

function folderUrl(text: string): URL {
  let url: URL
  try {
    url = new URL(text, globalThis.location?.href)
  } catch (cause) {
    throw new LowbitError('bad-address', `${JSON.stringify(text)} is not an address`, { cause })
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    throw new LowbitError(
      'bad-address',
      `${url.protocol} is not the web; an address begins with https://`,
    )
  }
  // The address of a file in the folder is as good as that of the folder.
  url.pathname = url.pathname.replace(/\/[^/]+\.(safetensors|json)$/, '/')
  if (!url.pathname.endsWith('/')) url.pathname += '/'
  return url
}

async function exists(url: URL): Promise<boolean> {
  const response = await request(url, { method: 'HEAD' })
  // A host of single pages answers every address with its page.
  return response.ok && !response.headers.get('content-type')?.startsWith('text/html')
}

async function get(url: URL): Promise<Response> {
  const response = await request(url)
  if (response.ok) return response
  throw new LowbitError('http-status', `the server answered ${response.status}`, { file: url.href })
}

async function request(url: URL, init?: RequestInit): Promise<Response> {
  try {
    return await fetch(url, init)
  } catch (cause) {
    throw new LowbitError(
      'fetch-failed',
      `can't be reached: there is no network, or the server does not let other pages read it (CORS)`,
      { file: url.href, cause },
    )
  }
}
