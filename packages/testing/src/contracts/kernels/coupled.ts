/** Coupled channels: codes that stand for several neighbouring ones. */

import { type CacheGrid, type CodedRows, ENTRIES, HALVES, seededRandom } from '@lowbit/core'
import type { Declare } from '../../checks/declare.ts'
import { expect } from '../../checks/expect.ts'
import { randomValues } from '../../random.ts'
import { type BenchOf, expectClose, expectRefusal, type Side } from './bench.ts'
import { store } from './cache.ts'
import { expectAttendsAsDecoded } from './coded-attention.ts'

const gridOf = (coupled: 4 | 8): CacheGrid => ({ ...HALVES, bits: 8, coupled })

/** Entries that differ from vector to vector; two of each codebook are alike. */
export function coupledStore(
  side: Side,
  coupled: 4 | 8,
  capacity: number,
  width: number,
): CodedRows {
  const values = randomValues(width * ENTRIES, seededRandom(coupled + width))
  for (let at = 0; at < values.length; at += ENTRIES * coupled) {
    values.copyWithin(at + 7 * coupled, at + 3 * coupled, at + 4 * coupled)
  }
  const codebooks = side.up(values, (width / coupled) * ENTRIES, coupled)
  return { ...store(side, gridOf(coupled), capacity, width), codebooks }
}

export function coupledContract(open: BenchOf, it: Declare): void {
  it.each([
    [4, 1, 8],
    [8, 1, 8],
    [4, 5, 24],
    [8, 19, 24],
    [4, 7, 64],
    [8, 6, 64],
  ])('finds the nearest entries: %i channels, %i rows of %i', async (...numbers) => {
    const [coupled, rows, width] = numbers as [4 | 8, number, number]
    const x = randomValues(rows * width, seededRandom(rows))
    const [actual, expected] = await open().both(async (side) => {
      const { kernels, up, zeros } = side
      const past = coupledStore(side, coupled, rows + 9, width)
      kernels.encodeRows(past, 3, up(x, rows, width))
      // A row anew, as after forgetting.
      kernels.encodeRows(past, 3, up(x.subarray(x.length - width), 1, width))
      const out = zeros(rows, width)
      kernels.decodeRows(out, past, 3)
      return kernels.read(out)
    })
    const input = Float32Array.from([...x.subarray(x.length - width), ...x.subarray(width)])
    const distance = (from: Float32Array, at: number): number =>
      from.subarray(at, at + coupled).reduce((sum, y, i) => sum + (y - input[at + i]) ** 2, 0)
    // Of entries that are as near but for rounding any may be found.
    for (let at = 0; at < input.length; at += coupled) {
      const [ours, theirs] = [distance(actual, at), distance(expected, at)]
      expect(ours <= theirs * (1 + 1e-4), `vector at ${at}: ${ours} off, not ${theirs}`).toBe(true)
      const entry = actual.subarray(at, at + coupled)
      if (ours === theirs) expectClose(entry, expected.subarray(at, at + coupled), 'an entry', 0)
    }
  })

  it('of entries that are alike the first is the code', async () => {
    const side = open()
    const past = coupledStore(side, 4, 1, 8)
    const entries = await side.kernels.read(past.codebooks!)
    const x = Float32Array.from([
      ...entries.subarray(28, 32),
      ...entries.subarray(1024 + 800, 1024 + 804),
    ])
    side.kernels.encodeRows(past, 0, side.up(x, 1, 8))
    expect([...(await side.kernels.readWords(past.codes))]).toEqual([3 + 200 * 256])
  })

  for (const [keys, values] of [
    [4, 4],
    [8, 8],
    [8, 0],
    [0, 4],
  ] as const) {
    it.each([
      [1, 288, 4, 3, 1, 64],
      [2, 264, 3, 10, 2, 32],
      [3, 264, 260, 4, 2, 32],
      [1, 517, 0, 4, 4, 8],
      [1, 9, 2, 10, 2, 24],
      [7, 264, 3, 4, 2, 32],
      [19, 40, 5, 6, 3, 8],
    ])(
      `attends over keys of ${keys} and values of ${values} channels: %i rows, %i in codes, %i before, %i heads on %i of %i`,
      async (...sizes) => {
        const [rows, coded, , , keyValueHeads, headSize] = sizes
        const width = keyValueHeads * headSize
        const random = seededRandom(coded + rows)
        const side = open()
        const codes = [keys, values].map((coupled) => {
          const grid: CacheGrid = { bits: 4, tokens: 1, channels: 8, symmetric: false }
          const past = coupled
            ? coupledStore(side, coupled, coded + 3, width)
            : store(side, grid, coded + 3, width)
          side.kernels.encodeRows(
            past,
            0,
            side.up(randomValues(coded * width, random), coded, width),
          )
          return past
        })
        await expectAttendsAsDecoded(side, codes, sizes)
      },
    )
  }

  it('refuses what does not fit', async () => {
    const side = open()
    const { kernels, zeros } = side
    const past = coupledStore(side, 4, 16, 32)
    const { codebooks: _, ...bare } = past
    const x = zeros(8, 32)
    const int4: CacheGrid = { bits: 4, tokens: 1, channels: 16, symmetric: false }
    for (const [name, into] of [
      ['no codebooks', bare],
      ['codebooks of fewer vectors', { ...past, codebooks: zeros(7 * ENTRIES, 4) }],
      ['codebooks of other channels', { ...past, codebooks: zeros(4 * ENTRIES, 8) }],
      ['codebooks of codes', { ...past, codebooks: zeros(8 * ENTRIES, 4, 'u16') }],
      ['codebooks of integers', { ...store(side, int4, 16), codebooks: past.codebooks }],
      ['codes of 4 bits', { ...past, grid: { ...past.grid, bits: 4 as const } }],
      ['16 channels', { ...past, grid: { ...past.grid, coupled: 16 as 8 } }],
      ['shared scales', { ...past, grid: { ...past.grid, channels: 8 } }],
      ['outliers', { ...past, outliers: zeros(16, 4, 'u16') }],
    ] as const) {
      await expectRefusal(name, () => kernels.encodeRows(into, 0, x))
      await expectRefusal(name, () => kernels.decodeRows(x, into, 0))
    }
    await expectRefusal('rows that are not there', () => kernels.encodeRows(past, 9, x))
  })
}
