/** What a squared error of each weight counts. */

import { LowbitError, type QuantizeInput, type Tensor } from '@lowbit/core'
import type { PaletteScheme } from './options.ts'

export interface Importance {
  /** [1, columns] or [rows, columns]; none where all count the same. */
  readonly tensor?: Tensor
  /** The Hessian's diagonal, where there is one. */
  readonly diagonal?: Float32Array
}

/** Checks what was measured and makes the importance of it: diag(H) by column, or Fisher information by weight. */
export async function importanceOf(
  { kernels, weight, hessian, fisher, name }: QuantizeInput,
  { mode, importance, needs }: PaletteScheme,
  own: (tensor: Tensor) => Tensor,
): Promise<Importance> {
  const { rows, columns } = weight
  const refuse = (code: string, what: string): never => {
    throw new LowbitError(code, what, { tensor: name })
  }
  if (needs.fisher && !fisher) {
    refuse(
      'bad-input',
      'palettize --mode sensitive needs the squared gradients of the loss (Fisher information), which nobody has measured; without them, --mode kmeans weighs by the Hessian',
    )
  }
  let diagonal: Float32Array | undefined
  if (needs.hessian) {
    if (!hessian) return refuse('bad-input', 'palettize needs the Hessian of the layer’s inputs')
    if (hessian.rows !== columns || hessian.columns !== columns) {
      const shape = `${hessian.rows} × ${hessian.columns}`
      refuse('bad-input', `the Hessian is ${shape}, the weight has ${columns} columns`)
    }
    const out = own(kernels.tensor(1, columns))
    kernels.diagonal(out, hessian)
    diagonal = await kernels.read(out)
    if (!diagonal.every(Number.isFinite)) {
      refuse(
        'bad-hessian',
        'the calibration activations hold NaN or infinite values; check the checkpoint or calibrate on another text',
      )
    }
    if (importance === 'hessian' && mode !== 'sensitive') return { tensor: out, diagonal }
  }
  if (mode !== 'sensitive' || !fisher) return { diagonal }
  if (fisher.rows !== rows || fisher.columns !== columns) {
    const shape = `${fisher.rows} × ${fisher.columns}`
    refuse('bad-input', `the Fisher information is ${shape}, the weight ${rows} × ${columns}`)
  }
  const power = await kernels.distance(fisher, undefined)
  if (!Number.isFinite(power)) {
    refuse('bad-fisher', 'the Fisher information holds NaN or infinite values')
  }
  return { tensor: fisher, diagonal }
}
