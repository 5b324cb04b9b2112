/** What CUDA's kernels do not do yet: each is an error that says so. */

import { type Kernels, LowbitError } from '@lowbit/core'

const OPERATIONS = [
  ...(['fitTables', 'decodeCodes', 'sumByCode'] as const),
  ...(['nearest', 'clusterSums', 'cluster', 'neighbours', 'feedbackVectors'] as const),
  ...(['decodeVectors', 'scatterVectors', 'descendVectors'] as const),
]

type Missing = Pick<Kernels, (typeof OPERATIONS)[number]>

/** Groups of the contract that need them, and why they are not checked. */
export const MISSING: Readonly<Record<string, string>> = Object.fromEntries(
  ['tables', 'vectors', 'outliers', 'coupled', 'positions'].map((group) => [
    ...[group, 'not on CUDA yet'],
  ]),
)

export function missingOperations(): Missing {
  const refuse = (name: string) => (): never => {
    throw new LowbitError(
      'not-supported',
      `${name} is not done on CUDA yet; the devices cpu and webgpu do it`,
    )
  }
  return Object.fromEntries(OPERATIONS.map((name) => [name, refuse(name)])) as unknown as Missing
}
