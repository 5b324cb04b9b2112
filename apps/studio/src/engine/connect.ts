/** The page's side: a worker with an engine in it. */

import { proxy, type Remote, releaseProxy, wrap } from 'comlink'
import type { Engine } from './engine.ts'

export interface Connection {
  readonly engine: Remote<Engine>
  /** Asks it to stop; a worker that does not listen is ended, since what is done lies in the journal. */
  stop(): Promise<void>
  close(): void
}

const PATIENCE = 3000

export async function connect(): Promise<Connection> {
  const worker = new Worker(new URL('./engine.ts', import.meta.url), { type: 'module' })
  const engine = wrap<Engine>(worker)
  let closed = false
  const close = (): void => {
    if (closed) return
    closed = true
    engine[releaseProxy]()
    worker.terminate()
  }
  const failed = new Promise<never>((_, reject) => {
    worker.onerror = ({ message }) =>
      reject(new Error(`the worker did not start: ${message || 'a file of the page is missing'}`))
  })
  await Promise.race([engine.start(document.baseURI), failed])
  return {
    engine,
    close,
    async stop() {
      const heard = engine.stop()
      await Promise.race([heard, new Promise((resolve) => setTimeout(resolve, PATIENCE))])
    },
  }
}

export { proxy }
