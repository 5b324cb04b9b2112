/** Registers the service worker; loads the page once more where only it makes threads possible. */

const TRIED = 'lowbit: isolated by the service worker'

export async function workOffline(): Promise<void> {
  if (!import.meta.env.PROD || !navigator.serviceWorker) return
  await navigator.serviceWorker.register(new URL('service-worker.js', document.baseURI), {
    type: 'module',
  })
  if (globalThis.crossOriginIsolated) return
  await navigator.serviceWorker.ready
  // Once: a browser that isn't isolated then never will be.
  if (sessionStorage.getItem(TRIED)) return
  sessionStorage.setItem(TRIED, 'yes')
  location.reload()
}
