/** The codes of one matrix of the quantized checkpoint, as the peers' files take them. */

import { type Checkpoint, isQuantized, scaleValues } from '@lowbit/core'
import type { Nbits } from '../onnx/graph.ts'

const GROUP = 32

/** The prepared checkpoint is symmetric, without order, in whole groups of 32: no repacking is needed. */
export async function codesOf(checkpoint: Checkpoint, module: string): Promise<Nbits> {
  const matrix = await checkpoint.readMatrix(module)
  if (!isQuantized(matrix)) throw new Error(`${module} is not quantized`)
  const { rows, columns, stages } = matrix
  const [{ codes, scale }] = stages
  if (!scale) throw new Error(`${module} has no scales`)
  const scales = Float32Array.from(scaleValues(scale, rows, columns))
  return { rows, columns, bits: codes.bits, group: GROUP, codes: codes.data, scales }
}
