/** Which words a matrix becomes on a device that decodes words. */

import { decode } from '../matrix/decode.ts'
import { isQuantized, type Matrix, type QuantizedMatrix, type Stage } from '../matrix/types.ts'
import { type PackedWords, packDense, packStage } from './pack.ts'

export interface WordPlan {
  readonly packed: readonly PackedWords[]
  /** Whether kernels decode it; else it is dense, its columns' order and factors multiplied out. */
  readonly fused: boolean
  /** For people. */
  readonly variant: string
}

/** How a matrix is kept: fused where kernels decode all of it, dense otherwise, with the reason. */
export function planWords(matrix: Matrix): WordPlan {
  if (!isQuantized(matrix)) {
    return { packed: [packDense(matrix)], fused: false, variant: `dense ${matrix.type}` }
  }
  const reason = unfused(matrix)
  const stages = reason ? [reason] : matrix.stages.map((stage) => pack(matrix, stage))
  const failed = stages.find((stage) => typeof stage === 'string')
  if (failed !== undefined) {
    const { rows, columns } = matrix
    const values = decode(matrix)
    return {
      packed: [packDense({ rows, columns, type: 'f32', values })],
      fused: false,
      variant: `dense f32: no fused kernel for ${failed}`,
    }
  }
  const packed = stages as PackedWords[]
  return { packed, fused: true, variant: `${packed.map(nameOf).join(' + ')} × f32` }
}

const pack = ({ rows, columns, rowScale }: QuantizedMatrix, stage: Stage): PackedWords | string =>
  packStage(stage, rows, columns, rowScale)

function unfused({ stages, sparse, rotation }: QuantizedMatrix): string | undefined {
  if (rotation) return 'rotations'
  if (sparse) return 'sparse entries'
  return stages.length === 0 ? 'a matrix without stages' : undefined
}

function nameOf({ layout, params }: PackedWords): string {
  const { kind, bits, length, along, even } = layout
  if (length > 1) return `${params.entries} vectors of ${length} along ${along}`
  const codes = kind === 'integer' ? `integers in ${bits} bits` : `table of ${params.entries}`
  return `${codes}, ${even ? 'scales a word' : 'scales a weight'}`
}
