/** The peers: installed by the bench alone, outside the workspace, without install scripts. */

import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

export const PEERS = path.resolve(import.meta.dirname, '../peers')
const require = createRequire(path.join(PEERS, 'package.json'))

/** A peer that cannot be had: its name and why. */
export class Skip extends Error {}

/** Installs what is missing; an error is left for those who ask for a peer. */
export function installPeers(): void {
  const { dependencies } = JSON.parse(readFileSync(path.join(PEERS, 'package.json'), 'utf8'))
  if (Object.keys(dependencies).every((name) => existsSync(folderOf(name)))) return
  console.error('Installing the peers (once, some 600 MB) …')
  spawnSync(
    'npm',
    ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--no-package-lock'],
    {
      cwd: PEERS,
      stdio: ['ignore', 2, 2],
      env: {
        ...process.env,
        ONNXRUNTIME_NODE_INSTALL: 'skip',
        NODE_LLAMA_CPP_SKIP_DOWNLOAD: 'true',
      },
      shell: process.platform === 'win32',
    },
  )
}

export function folderOf(name: string): string {
  return path.join(PEERS, 'node_modules', name)
}

/** A peer's module, as what the caller knows of it. */
export async function importPeer<T>(name: string, file?: string): Promise<T> {
  if (!existsSync(folderOf(name))) throw new Skip(`${name} could not be installed`)
  try {
    const at = file ? path.join(folderOf(name), file) : require.resolve(name)
    const module = await import(pathToFileURL(at).href)
    return module as T
  } catch (error) {
    throw new Skip(`${name} does not load here: ${firstLine(error)}`)
  }
}

export function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n')[0]
}
