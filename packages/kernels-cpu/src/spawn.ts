/** One worker, of Node or of a browser. The build renames worker.ts to worker.js (tsup.config.ts). */

import type { Start } from './worker.ts'

export interface Thread {
  readonly ready: Promise<void>
  stop(): void
}

export function startThread(start: Start): Thread {
  const node = globalThis.process?.getBuiltinModule?.('node:worker_threads')
  if (node) {
    const worker = new node.Worker(new URL('./worker.ts', import.meta.url), { execArgv: [] })
    const ready = new Promise<void>((resolve, reject) => {
      worker.once('message', () => {
        // From here on it must not keep the process alive.
        worker.unref()
        resolve()
      })
      worker.once('error', reject)
    })
    worker.postMessage(start)
    return { ready, stop: () => void worker.terminate() }
  }
  const worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' })
  const ready = new Promise<void>((resolve, reject) => {
    worker.onmessage = () => resolve()
    worker.onerror = ({ message }) => reject(new Error(message))
  })
  worker.postMessage(start)
  return { ready, stop: () => worker.terminate() }
}
