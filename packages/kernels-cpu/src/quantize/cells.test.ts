import { describe, expect, it } from 'vitest'
import { normals, seeded, using } from '../plain-loops.ts'

/** By all entries, rounded as the kernels do; of equal scores the first. */
function brute(x: Float32Array, table: Float32Array, d: number): Uint16Array {
  const { fround } = Math
  const entries = table.length / d
  const half = Float32Array.from({ length: entries }, (_, i) => {
    let square = 0
    for (let e = 0; e < d; e++) {
      square = fround(square + fround(table[i * d + e] * table[i * d + e]))
    }
    return square * 0.5
  })
  return Uint16Array.from({ length: x.length / d }, (_, n) => {
    let least = Number.POSITIVE_INFINITY
    let found = 0
    for (let i = 0; i < entries; i++) {
      let s = half[i]
      for (let e = 0; e < d; e++) s = fround(s - fround(x[n * d + e] * table[i * d + e]))
      if (s < least) {
        least = s
        found = i
      }
    }
    return found
  })
}

describe.each([{ threads: 2 }, { threads: 1, strict: false }])('cells, %j', (options) => {
  it.each([4, 5, 6, 7, 8])('find what a search of all entries finds, %i elements', async (d) => {
    await using(options, async (kernels) => {
      const random = seeded(d)
      const [n, entries] = [2003, d > 6 ? 2061 : 1061]
      const values = normals(random, n * d)
      const table = normals(random, entries * d)
      // Entries twice, in heaps, and all on a grid, so that there are many equal scores.
      table.copyWithin(500 * d, 0, 100 * d)
      for (let i = 0; i < 200 * d; i++) {
        table[i] = Math.round(table[i])
        values[i] = Math.round(values[i] * 2) / 2
      }
      // Far away, at an entry, and no numbers at all.
      for (let e = 0; e < d; e++) values[(n - 1) * d + e] = 1e4 * (e + 1)
      values.set(table.subarray(7 * d, 8 * d), (n - 2) * d)
      values[(n - 3) * d] = Number.NaN
      values[(n - 4) * d + 1] = Number.POSITIVE_INFINITY
      const [x, t] = [kernels.upload(values, n, d), kernels.upload(table, entries, d)]
      const codes = kernels.tensor(n, 1, 'u16')
      kernels.nearest(codes, x, t)
      expect(await kernels.readCodes(codes)).toEqual(brute(values, table, d))
      kernels.free(x, t, codes)
    })
  })

  it.each([
    ['infinite', Number.POSITIVE_INFINITY],
    ['tiny', 1e-33],
    ['huge', 1e15],
  ])('find it in a table with %s entries', async (_, scale) => {
    await using(options, async (kernels) => {
      const [d, n, entries] = [8, 600, 2048]
      const factor = Number.isFinite(scale) ? scale : 1
      const table = normals(seeded(2), entries * d).map((x) => x * factor)
      if (!Number.isFinite(scale)) table[5 * d + 3] = scale
      const values = normals(seeded(3), n * d).map((x) => x * factor)
      const [x, t] = [kernels.upload(values, n, d), kernels.upload(table, entries, d)]
      const codes = kernels.tensor(n, 1, 'u16')
      kernels.nearest(codes, x, t)
      expect(await kernels.readCodes(codes)).toEqual(brute(values, table, d))
      kernels.free(x, t, codes)
    })
  })

  it('find it among entries that are all the same, or one far from the rest', async () => {
    await using(options, async (kernels) => {
      const d = 6
      const table = new Float32Array(1024 * d).fill(0.25)
      table.fill(100, 900 * d, 901 * d)
      const values = normals(seeded(1), 1000 * d, 30)
      const [x, t] = [kernels.upload(values, 1000, d), kernels.upload(table, 1024, d)]
      const codes = kernels.tensor(1000, 1, 'u16')
      kernels.nearest(codes, x, t)
      expect(await kernels.readCodes(codes)).toEqual(brute(values, table, d))
      kernels.free(x, t, codes)
    })
  })
})
