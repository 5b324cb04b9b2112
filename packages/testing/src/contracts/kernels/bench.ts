/** Two sets of kernels side by side: the ones under test and the reference. */

import type { Kernels, Tensor, TensorType, Weight } from '@lowbit/core'
import { expect } from '../../checks/expect.ts'
import { referenceKernels } from '../../reference/kernels.ts'

/** What the groups of tests share; `kernels` is there once tests run. */
export interface Bench {
  readonly kernels: Kernels
  /** Uploads to the kernels under test; freed after the test. */
  up(values: ArrayLike<number>, rows: number, columns: number): Tensor
  /** Codes instead of numbers. */
  zeros(rows: number, columns: number, type?: TensorType): Tensor
  /** Keeps a weight until the test is over. */
  keep(weight: Weight): Weight
  /**
   * Runs the same steps with the kernels under test and with the reference; `steps` gets the kernels
   * and a way to upload to them.
   */
  both<Result>(steps: (side: Side) => Result | Promise<Result>): Promise<[Result, Result]>
}

export interface Side {
  readonly kernels: Kernels
  up(values: ArrayLike<number>, rows: number, columns: number): Tensor
  zeros(rows: number, columns: number, type?: TensorType): Tensor
}

export interface OpenBench extends Bench {
  /** Frees what the last test has left. */
  clear(): void
}

export function openBench(kernels: Kernels): OpenBench {
  let tensors: Tensor[] = []
  let weights: Weight[] = []
  const side: Side = {
    kernels,
    up(values, rows, columns) {
      const floats = values instanceof Float32Array ? values : Float32Array.from(values)
      const tensor = kernels.upload(floats, rows, columns)
      tensors.push(tensor)
      return tensor
    },
    zeros(rows, columns, type) {
      const tensor = kernels.tensor(rows, columns, type)
      tensors.push(tensor)
      return tensor
    },
  }
  return {
    ...side,
    keep(weight) {
      weights.push(weight)
      return weight
    },
    async both(steps) {
      const other = openBench(referenceKernels())
      const expected = await steps(other)
      const result = await steps(side)
      other.kernels.dispose()
      return [result, expected]
    },
    clear() {
      kernels.free(...tensors)
      for (const weight of weights) kernels.unload(weight)
      tensors = []
      weights = []
    },
  }
}

/** Every |x − y| at most `tolerance` · (largest |y| of the row, or 1e-30). */
export function expectClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  what: string,
  tolerance = 1e-5,
  columns = expected.length,
): void {
  expect(actual.length, `${what}: how many numbers`).toBe(expected.length)
  for (let from = 0; from < expected.length; from += columns) {
    let largest = 1e-30
    for (let i = from; i < from + columns; i++) largest = Math.max(largest, Math.abs(expected[i]))
    for (let i = from; i < from + columns; i++) {
      expectNear(actual[i], expected[i], tolerance * largest, `${what}: [${i}]`)
    }
  }
}

/** |x − y| ≤ tolerance; NaN is never near. */
export function expectNear(
  actual: number,
  expected: number,
  tolerance: number,
  what: string,
): void {
  // An expect() for each number would take most of the suite's time.
  if (Math.abs(actual - expected) <= tolerance || Object.is(actual, expected)) return
  expect.fail(`${what} is ${actual} and should be ${expected} (± ${tolerance})`)
}

/** At once or as a rejection, it must be a LowbitError, not a crash and not silence. */
export async function expectRefusal(what: string, call: () => unknown): Promise<void> {
  let error: unknown
  try {
    await call()
  } catch (thrown) {
    error = thrown
  }
  if (error === undefined) expect.fail(`${what}: nothing was thrown`)
  expect((error as Error).name, `${what}: ${String(error)}`).toBe('LowbitError')
}

/** What the groups are given: the bench is open once tests run. */
export type BenchOf = () => Bench
