/**
 * How work is shared. Every exported kernel is called by all threads with the same arguments; each
 * takes numbered tasks off one counter until none is left. Which thread does a task changes from
 * run to run, what a task computes does not, so results never depend on the number of threads.
 */

/** Address of the task counter; the host sets it to 0 before each call. */
const COUNTER: usize = 64

/** Which thread this instance is: chooses its part of the scratch memory. */
export let thread: usize = 0

export function setThread(index: i32): void {
  thread = index
}

/** Whether the engine makes one instruction of 256 bits of two of 128 that belong together. */
export let wide: bool = false

export function setWide(on: i32): void {
  wide = on != 0
}

// @ts-ignore: decorator
@inline
export function take(): i32 {
  if (ASC_FEATURE_THREADS) return atomic.add<i32>(COUNTER, 1)
  const task = load<i32>(COUNTER)
  store<i32>(COUNTER, task + 1)
  return task
}
