/**
 * Settles as `promise` does, or rejects with the signal's reason as soon as it aborts, so that work
 * which hangs can still be given up. The work itself goes on; its result is dropped.
 */
export async function orAbort<T>(promise: T | PromiseLike<T>, signal?: AbortSignal): Promise<T> {
  if (signal === undefined) return promise
  let stop: (() => void) | undefined
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason)
    if (signal.aborted) stop()
    else signal.addEventListener('abort', stop, { once: true })
  })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    if (stop !== undefined) signal.removeEventListener('abort', stop)
  }
}
