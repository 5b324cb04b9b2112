/**
 * Serves the studio's page, and the folders of models that were named, to this machine alone.
 *
 *     /                        the page
 *     /demo/FILE               the bundled model
 *     /models/index.json       names of the folders
 *     /models/NAME/FILE        a file of one, with ranges
 */

import { readdir } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import sirv from 'sirv'

export interface StudioSite {
  /** The built page. */
  readonly page: string
  readonly demo: string
  /** Folders by the name that the page shows. */
  readonly models: ReadonlyMap<string, string>
}

const HEADERS = {
  // Shared memory, which threads need, is for pages that are isolated from others.
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
  'cross-origin-resource-policy': 'same-origin',
  // Plots carry a style element; nothing is ever evaluated but WebAssembly.
  'content-security-policy':
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self' https: http://localhost:* http://127.0.0.1:*; object-src 'none'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-cache',
}

type Handler = (request: IncomingMessage, response: ServerResponse, next: () => void) => void

/** @param port 0: any that is free */
export async function serveStudio(site: StudioSite, port: number): Promise<Server> {
  const files: Handler = sirv(site.page, { etag: true })
  const demo: Handler = sirv(site.demo, { etag: true })
  const models = new Map([...site.models].map(([name, folder]) => [name, modelFolder(folder)]))
  const server = createServer((request, response) => {
    const refused = refusal(request, (server.address() as AddressInfo).port)
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value)
    if (refused) return end(response, 403, refused)
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      return end(response, 405, 'the studio only reads')
    }
    const missing = (): void => end(response, 404, 'there is nothing here')
    const address = URL.parse(request.url ?? '/', 'http://localhost')
    if (!address) return missing()
    const [, first, ...rest] = address.pathname.split('/')
    if (first === 'demo') return under(demo, request, response, missing, rest)
    if (first !== 'models') return files(request, response, missing)
    if (rest.length === 1 && rest[0] === 'index.json') {
      response.setHeader('content-type', 'application/json')
      return end(response, 200, JSON.stringify([...site.models.keys()]))
    }
    const folder = models.get(decoded(rest[0]) ?? '')
    if (!folder || rest.length !== 2) return missing()
    under(folder, request, response, missing, rest.slice(1))
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', resolve)
  })
  return server
}

/** Files that lie in the folder itself, by their plain names; links in it are what its owner has put there. */
function modelFolder(folder: string): Handler {
  const serve: Handler = sirv(folder, { dev: true, etag: true })
  return (request, response, next) => {
    const name = decoded(path.posix.basename(request.url ?? ''))
    readdir(folder).then(
      (names) => (name && names.includes(name) ? serve(request, response, next) : next()),
      () => next(),
    )
  }
}

function under(
  handler: Handler,
  request: IncomingMessage,
  response: ServerResponse,
  missing: () => void,
  segments: readonly string[],
): void {
  // sirv keeps what it has parsed of an address on the request.
  request.url = `/${segments.join('/')}`
  handler(request, response, missing)
}

/**
 * Another page in the same browser can send requests here, under a name of its own that resolves to this machine
 * (DNS rebinding), or as a foreign origin: both are turned away.
 */
function refusal({ headers }: IncomingMessage, port: number): string | undefined {
  const names = ['localhost', '127.0.0.1'].map((name) => `${name}:${port}`)
  if (!headers.host || !names.includes(headers.host)) return 'this server answers to localhost only'
  const { origin } = headers
  if (origin && !names.map((name) => `http://${name}`).includes(origin)) {
    return 'other pages may not ask this server'
  }
  const site = headers['sec-fetch-site']
  if (site && site !== 'same-origin' && site !== 'none')
    return 'other pages may not ask this server'
  return undefined
}

function decoded(text: string | undefined): string | undefined {
  try {
    return text && decodeURIComponent(text)
  } catch {
    return undefined
  }
}

function end(response: ServerResponse, status: number, text: string): void {
  response.statusCode = status
  if (!response.hasHeader('content-type')) {
    response.setHeader('content-type', 'text/plain; charset=utf-8')
  }
  response.end(text)
}
