/**
 * A thread: instantiates the module over the shared memory and waits for calls. It spins for a short
 * while first, since the next call of a forward pass usually comes within microseconds.
 */

import { ARGUMENT_COUNT, ARGUMENTS, CALL, EXPORT, exportNames, FAILED, RUNNING } from './control.ts'
import type { Calls } from './module.ts'

export interface Start {
  readonly module: WebAssembly.Module
  readonly memory: WebAssembly.Memory
  readonly thread: number
  /** As src/wide.ts says. */
  readonly wide: boolean
}

const SPINS = 20_000

function serve({ module, memory, thread, wide }: Start, ready: () => void): void {
  const { exports } = new WebAssembly.Instance(module, { env: { memory } })
  const calls = exports as unknown as Calls
  const names = exportNames(module)
  // Both lie below what growing moves, and a shared buffer never detaches.
  const control = new Int32Array(memory.buffer)
  const values = new Float64Array(memory.buffer)
  calls.setThread(thread)
  calls.setWide(wide ? 1 : 0)
  let seen = Atomics.load(control, CALL)
  ready()
  for (;;) {
    for (let spin = 0; Atomics.load(control, CALL) === seen; spin++) {
      if (spin >= SPINS) Atomics.wait(control, CALL, seen)
    }
    seen = Atomics.load(control, CALL)
    const index = control[EXPORT]
    if (index < 0) return
    try {
      calls[names[index]](...values.subarray(ARGUMENTS, ARGUMENTS + control[ARGUMENT_COUNT]))
    } catch {
      Atomics.store(control, FAILED, 1)
    }
    if (Atomics.sub(control, RUNNING, 1) === 1) Atomics.notify(control, RUNNING)
  }
}

/** Node's worker threads; a browser's worker has the same in its global scope. */
const node = globalThis.process?.getBuiltinModule?.('node:worker_threads')
if (node?.parentPort) {
  const port = node.parentPort
  port.once('message', (start: Start) => serve(start, () => port.postMessage('ready')))
} else {
  globalThis.onmessage = ({ data }: MessageEvent<Start>) => {
    serve(data, () => globalThis.postMessage('ready'))
  }
}
