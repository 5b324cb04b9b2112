/**
 * Keeps the page for working offline, and sends the headers that shared memory needs where the host can't
 * (cross-origin isolation: COOP and COEP). The build writes the list of files and its hash into it.
 */

interface WorkerScope {
  readonly location: Location
  readonly registration: { readonly scope: string }
  readonly clients: { claim(): Promise<void> }
  skipWaiting(): Promise<void>
  addEventListener(type: string, listener: (event: WorkerEvent) => void): void
}

interface WorkerEvent {
  readonly request: Request
  waitUntil(work: Promise<unknown>): void
  respondWith(response: Promise<Response>): void
}

/** Replaced by the build. */
declare const __FILES__: readonly string[]
declare const __VERSION__: string

const scope = globalThis as unknown as WorkerScope
const CACHE = `lowbit-${__VERSION__}`
const home = new URL(scope.registration.scope)

const ISOLATION = {
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
  'cross-origin-resource-policy': 'same-origin',
}

scope.addEventListener('install', (event) => {
  event.waitUntil(
    caches
      .open(CACHE)
      .then((cache) => cache.addAll(__FILES__.map((name) => new URL(name, home).href)))
      .then(() => scope.skipWaiting()),
  )
})

scope.addEventListener('activate', (event) => {
  event.waitUntil(
    caches
      .keys()
      .then((names) =>
        Promise.all(
          names
            .filter((name) => name.startsWith('lowbit-') && name !== CACHE)
            .map((name) => caches.delete(name)),
        ),
      )
      .then(() => scope.clients.claim()),
  )
})

scope.addEventListener('fetch', (event) => {
  const { request } = event
  const url = new URL(request.url)
  const ours = url.origin === home.origin && url.pathname.startsWith(home.pathname)
  // Weights of other places, and parts of files, are the page's own business.
  if (!ours || request.method !== 'GET' || request.headers.has('range')) return
  if (url.pathname.startsWith(`${home.pathname}models/`)) return
  event.respondWith(answer(request).then(isolated))
})

/** Files of a build have their hash in the name, so what is kept is right. */
async function answer(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE)
  const kept = await cache.match(request, { ignoreSearch: request.mode === 'navigate' })
  if (kept) return kept
  const response = await fetch(request)
  if (response.status === 200) await cache.put(request, response.clone()).catch(() => {})
  return response
}

function isolated(response: Response): Response {
  // One without a body or of another origin can't be made anew.
  if (response.status === 0) return response
  const headers = new Headers(response.headers)
  for (const [name, value] of Object.entries(ISOLATION)) headers.set(name, value)
  const { status, statusText } = response
  return new Response(response.body, { status, statusText, headers })
}
