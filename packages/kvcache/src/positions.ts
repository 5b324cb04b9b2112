/** Angles of RoPE on a device, for keys that are coded before it. */

import { type CacheShape, type Kernels, LowbitError, type Tensor } from '@lowbit/core'

/** For the first positions; [positions, headSize / 2] each. */
export interface Positions {
  readonly cos: Tensor
  readonly sin: Tensor
  /** The sines of the way back. */
  readonly back: Tensor
}

export function loadPositions(
  kernels: Kernels,
  { rope, headSize }: Pick<CacheShape, 'rope' | 'headSize'>,
  count: number,
): Positions {
  if (!rope) {
    throw new LowbitError(
      'bad-option',
      'keys are coded before RoPE where the shape of a cache says how it turns them; set positions to behind',
      { option: 'positions' },
    )
  }
  const { cos, sin } = rope(count)
  const load = (values: Float32Array) => kernels.upload(values, count, headSize / 2)
  return { cos: load(cos), sin: load(sin), back: load(sin.map((x) => -x)) }
}
