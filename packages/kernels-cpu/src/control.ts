/** Where the first bytes of the memory are, in i32 indices and byte addresses. */

/** Counts calls; workers wait for it to change. */
export const CALL = 0
/** Workers that have not finished the call. */
export const RUNNING = 1
/** Index of the export to call, −1 to leave. */
export const EXPORT = 2
export const ARGUMENT_COUNT = 3
/** Set by a worker whose call trapped. */
export const FAILED = 4
/** The counter that tasks are taken from: byte 64, as assembly/threads.ts has it. */
export const COUNTER = 16
/** Arguments as f64: byte 128. */
export const ARGUMENTS = 16
export const MOST_ARGUMENTS = 32
/** A source descriptor (assembly/source.ts) that lasts for one call. */
export const PASSING_SOURCE = 512

/** The exports in the order in which main thread and workers number them. */
export function exportNames(module: WebAssembly.Module): string[] {
  return WebAssembly.Module.exports(module)
    .filter(({ kind }) => kind === 'function')
    .map(({ name }) => name)
    .sort()
}
