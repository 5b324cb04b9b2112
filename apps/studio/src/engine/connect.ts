/** The page's side: a worker with an engine in it. */

import { proxy, type Remote, wrap } from 'comlink'
import type { Engine } from './engine.ts'

export interface Connection {
  readonly engine: Remote<Engine>
  /** Asks it to stop what it does. One that does not listen for so many milliseconds is ended, if that is said. */
  stop(patience?: number): Promise<void>
  /** Rejects when the worker is ended: calls that it has not answered are waited for in vain. */
  readonly ended: Promise<never>
  close(): void
}

export async function connect(): Promise<Connection> {
  const worker = new Worker(new URL('./engine.ts', import.meta.url), { type: 'module' })
  const engine = wrap<Engine>(worker)
  let close = (): void => {}
  const ended = new Promise<never>((_, reject) => {
    close = () => {
      reject(Object.assign(new Error('the worker was ended'), { name: 'stopped' }))
      worker.terminate()
    }
  })
  // Most of the time nobody waits for it.
  ended.catch(() => {})
  const failed = new Promise<never>((_, reject) => {
    worker.onerror = ({ message }) =>
      reject(new Error(`the worker did not start: ${message || 'a file of the page is missing'}`))
  })
  await Promise.race([engine.start(document.baseURI), failed])
  return {
    engine,
    close,
    ended,
    async stop(patience) {
      const timer = patience === undefined ? undefined : setTimeout(close, patience)
      await Promise.race([engine.stop(), ended]).finally(() => clearTimeout(timer))
    },
  }
}

export { proxy }
