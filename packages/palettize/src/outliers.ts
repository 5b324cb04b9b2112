/**
 * Weights that are kept dense (SqueezeLLM's dense-and-sparse, 2306.07629, section 4.2), here those that would lose
 * most: Σ importance · (w − q)².
 */

import { type Kernels, type SparseEntries, type Tensor, toNumbers } from '@lowbit/core'

export interface OutlierChoice {
  readonly kernels: Kernels
  readonly weight: Tensor
  /** Its values on a first palette. */
  readonly decoded: Tensor
  /** [1, columns] or [rows, columns]; all alike by default. */
  readonly importance?: Tensor
  readonly share: number
}

/** Places in the row-major weight, ascending; none where the share is less than one weight. */
export async function chooseOutliers(choice: OutlierChoice): Promise<Uint32Array> {
  const { kernels, weight, decoded, importance, share } = choice
  const [w, q] = [await kernels.read(weight), await kernels.read(decoded)]
  const h = importance && (await kernels.read(importance))
  const errors = new Float32Array(w.length)
  const { columns } = weight
  for (let i = 0; i < w.length; i++) {
    const factor = h ? h[h.length === columns ? i % columns : i] : 1
    errors[i] = factor * (w[i] - q[i]) ** 2
  }
  return largest(errors, Math.floor(share * w.length))
}

/** Where the `count` largest of numbers ≥ 0 are; of equals the first. */
export function largest(values: Float32Array, count: number): Uint32Array {
  if (count === 0) return new Uint32Array(0)
  // Floats ≥ 0 are ordered as their bits: the upper half of them finds the class in which the last one falls.
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
  const classes = new Uint32Array(1 << 16)
  for (let i = 0; i < bits.length; i++) classes[bits[i] >>> 16]++
  let left = count
  let last = classes.length - 1
  while (last > 0 && classes[last] < left) left -= classes[last--]
  const inLast: number[] = []
  const places: number[] = []
  for (let i = 0; i < bits.length; i++) {
    const which = bits[i] >>> 16
    if (which > last) places.push(i)
    else if (which === last) inLast.push(i)
  }
  inLast.sort((a, b) => values[b] - values[a] || a - b)
  return Uint32Array.from([...places, ...inLast.slice(0, left)]).sort()
}

/** A copy of a tensor with zeros at some places. One row of importance is repeated for all rows first. */
export async function without(
  kernels: Kernels,
  tensor: Tensor | undefined,
  shape: { readonly rows: number; readonly columns: number },
  places: Uint32Array,
): Promise<Tensor> {
  const { rows, columns } = shape
  const values = new Float32Array(rows * columns).fill(1)
  if (tensor) {
    const read = await kernels.read(tensor)
    for (let at = 0; at < values.length; at += read.length) values.set(read, at)
  }
  for (const place of places) values[place] = 0
  return kernels.upload(values, rows, columns)
}

export interface SplitWeight {
  readonly sparse: SparseEntries
  /** The weight less its sparse part: on the palette at the chosen places. */
  readonly rest: Tensor
}

/** What the chosen weights have over their nearest values, in f16. */
export async function splitWeight(
  kernels: Kernels,
  weight: Tensor,
  decoded: Tensor,
  places: Uint32Array,
): Promise<SplitWeight> {
  const { rows, columns } = weight
  const [w, q] = [await kernels.read(weight), await kernels.read(decoded)]
  const values = toNumbers(
    'f16',
    Float32Array.from(places, (place) => w[place] - q[place]),
  )
  for (const [i, place] of places.entries()) w[place] -= values.values[i]
  return {
    sparse: {
      rows: places.map((place) => Math.floor(place / columns)),
      columns: places.map((place) => place % columns),
      values,
    },
    rest: kernels.upload(w, rows, columns),
  }
}
