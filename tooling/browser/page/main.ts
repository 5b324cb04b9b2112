/** The page: starts the checks in a worker, as a program would run the kernels. */

import type { Report, Request } from './checks.worker.ts'

declare global {
  interface Window {
    runChecks(request: Request): Promise<Report>
  }
}

window.runChecks = (request) =>
  new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./checks.worker.ts', import.meta.url), { type: 'module' })
    worker.onerror = ({ message }) => reject(new Error(message || 'the worker failed to start'))
    worker.onmessage = ({ data }: MessageEvent<Report | { error: string }>) => {
      worker.terminate()
      if ('error' in data) reject(new Error(data.error))
      else resolve(data)
    }
    worker.postMessage(request)
  })
