/** Starts the workers and hands calls to them; the caller is thread 0. */

import { LowbitError } from '@lowbit/core'
import {
  ARGUMENT_COUNT,
  ARGUMENTS,
  CALL,
  COUNTER,
  EXPORT,
  exportNames,
  FAILED,
  RUNNING,
} from './control.ts'
import type { Memory } from './memory.ts'
import type { Calls } from './module.ts'
import { startThread, type Thread } from './spawn.ts'

export interface Threads {
  /** How many, the caller included. */
  readonly count: number
  readonly wide: boolean
  /** Calls an export on every thread, or on the caller alone. Returns what the caller's call did. */
  call(name: string, together: boolean, args: readonly number[]): number
  stop(): void
}

/** After so many looks the caller sleeps until the last worker is done, where it is allowed to. */
const SPINS = 100_000

export async function startThreads(
  module: WebAssembly.Module,
  memory: Memory,
  count: number,
  wide: boolean,
): Promise<Threads> {
  const instance = await WebAssembly.instantiate(module, { env: { memory: memory.memory } })
  const calls = instance.exports as unknown as Calls
  calls.setThread(0)
  calls.setWide(wide ? 1 : 0)
  const names = exportNames(module)
  const numbers = new Map(names.map((name, index) => [name, index]))
  const workers: Thread[] = []
  for (let thread = 1; thread < count; thread++) {
    workers.push(startThread({ module, memory: memory.memory, thread, wide }))
  }
  await Promise.all(workers.map(({ ready }) => ready))

  function call(name: string, together: boolean, args: readonly number[]): number {
    const control = memory.i32
    control[COUNTER] = 0
    if (!together || workers.length === 0) return calls[name](...args)
    control[EXPORT] = numbers.get(name) ?? -1
    control[ARGUMENT_COUNT] = args.length
    memory.f64.set(args, ARGUMENTS)
    control[RUNNING] = workers.length
    Atomics.add(control, CALL, 1)
    Atomics.notify(control, CALL)
    const result = calls[name](...args)
    let left = Atomics.load(control, RUNNING)
    for (let spin = 0; left > 0; spin++) {
      if (spin >= SPINS) sleep(control, left)
      left = Atomics.load(control, RUNNING)
    }
    if (control[FAILED]) throw new LowbitError('kernel', `${name} failed on another thread`)
    return result
  }

  function stop(): void {
    if (workers.length > 0) {
      memory.i32[EXPORT] = -1
      Atomics.add(memory.i32, CALL, 1)
      Atomics.notify(memory.i32, CALL)
    }
    for (const worker of workers.splice(0)) worker.stop()
  }

  return { count, wide, call, stop }
}

/** A page's main thread must not sleep; there it goes on spinning. */
function sleep(control: Int32Array, left: number): void {
  try {
    Atomics.wait(control, RUNNING, left)
  } catch {
    // Not allowed here.
  }
}
