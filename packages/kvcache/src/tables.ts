/** Tables of values that are fitted to a model's keys or values. */

import {
  type CacheGrid,
  type CacheSample,
  checkGrid,
  type Kernels,
  LowbitError,
} from '@lowbit/core'

/**
 * The 2^bits values between 0 and 1 that stand for what lies between the least and the largest number of a block, with
 * the least Σ weight · (x − its value)² (KVQuant, Hooper et al., NeurIPS 2024, section 3.3; one-dimensional k-means,
 * whose optimum the kernels find): x = least + (largest − least) · u, so a u counts weight · (largest − least)². Rows
 * that make no whole block at the end are left out. Samples are as they are when they are coded: behind RoPE and any
 * rotation.
 */
export async function fitCacheTable(
  kernels: Kernels,
  samples: readonly CacheSample[],
  { bits, tokens, channels }: Pick<CacheGrid, 'bits' | 'tokens' | 'channels'>,
): Promise<Float32Array> {
  const [places, counts]: [number[], number[]] = [[], []]
  for (const { numbers, weights, width } of samples) {
    checkGrid({ bits, tokens, channels, symmetric: false }, width)
    if (weights && weights.length !== numbers.length) {
      throw new LowbitError('bad-shape', `${weights.length} weights are not ${numbers.length}`)
    }
    const rows = Math.floor(numbers.length / width)
    for (let row = 0; row + tokens <= rows; row += tokens) {
      for (let column = 0; column < width; column += channels) {
        const block = Array.from(
          { length: tokens * channels },
          (_, i) => (row + Math.floor(i / channels)) * width + column + (i % channels),
        )
        let [least, most] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]
        for (const at of block) {
          least = Math.min(least, numbers[at])
          most = Math.max(most, numbers[at])
        }
        const span = most - least
        // Of equal numbers any table is right.
        if (!(span > 0)) continue
        for (const at of block) {
          places.push((numbers[at] - least) / span)
          counts.push((weights?.[at] ?? 1) * span ** 2)
        }
      }
    }
  }
  if (places.length === 0) {
    throw new LowbitError('bad-option', 'a table is fitted to samples of one block at least', {
      option: 'samples',
    })
  }
  // Sums of many weights stay in the range of f32.
  const most = counts.reduce((a, b) => Math.max(a, b), 0)
  const line = (values: number[], factor = 1) =>
    kernels.upload(
      Float32Array.from(values, (value) => value * factor),
      1,
      values.length,
    )
  const [x, importance] = [line(places), line(counts, most > 0 ? 1 / most : 1)]
  const table = kernels.tensor(1, 2 ** bits)
  const blocks = { blockRows: 1, blockColumns: places.length }
  kernels.fitTables(table, x, { ...blocks, method: 'kmeans', importance })
  const found = (await kernels.read(table)).slice()
  kernels.free(x, importance, table)
  return found
}
