/** Calls of the driver that throw what went wrong. */

import { LowbitError } from '@lowbit/core'
import { driverError, isLasting } from './errors.ts'
import { openLibrary } from './library.ts'

export interface Driver {
  /** CUDA's version that it was made for, as 13.0. */
  readonly version: string
  /** Calls a function; `doing` says what for. After an error that lasts, every call throws it. */
  call(name: string, doing: string, ...args: unknown[]): void
  /** Calls without throwing: what is left to do when something is given up. */
  attempt(name: string, ...args: unknown[]): number
  /** Calls a function whose first argument takes the result. */
  get<T>(name: string, doing: string, ...args: unknown[]): T
}

/** The first with all functions that are used. */
const OLDEST = 12000

export function openDriver(library: string | undefined): Driver {
  const functions = openLibrary(library)
  let lasting: LowbitError | undefined

  function textOf(result: number, name: 'cuGetErrorName' | 'cuGetErrorString'): string {
    const text: (string | null)[] = [null]
    return functions[name](result, text) === 0 ? (text[0] ?? '') : ''
  }

  function call(name: string, doing: string, ...args: unknown[]): void {
    if (lasting) {
      const message = `an earlier error ended the work on this GPU: ${lasting.message}`
      throw new LowbitError(lasting.code, message, { cause: lasting })
    }
    const result = functions[name](...args)
    if (result === 0) return
    const error = driverError(result, doing, {
      name: textOf(result, 'cuGetErrorName'),
      description: textOf(result, 'cuGetErrorString'),
    })
    if (isLasting(result)) lasting = error
    throw error
  }

  function get<T>(name: string, doing: string, ...args: unknown[]): T {
    const result: (T | null)[] = [null]
    call(name, doing, result, ...args)
    return result[0] as T
  }

  call('cuInit', 'starting the driver', 0)
  const number = get<number>('cuDriverGetVersion', 'asking the driver for its version')
  const version = written(number)
  if (number < OLDEST) {
    throw new LowbitError(
      'no-device',
      `the NVIDIA driver is too old: it is for CUDA ${version}, and ${written(OLDEST)} is needed`,
    )
  }
  return { version, call, attempt: (name, ...args) => functions[name](...args), get }
}

/** 12040 is 12.4. */
const written = (version: number): string =>
  `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`
