/** Keys and values in few bits: coding, and attention over codes. */

import {
  type CacheGrid,
  type CodedRows,
  codeColumns,
  HALVES,
  scaleColumns,
  seededRandom,
} from '@lowbit/core'
import type { Declare } from '../../checks/declare.ts'
import { expect } from '../../checks/expect.ts'
import { randomValues } from '../../random.ts'
import { type BenchOf, expectClose, expectRefusal, type Side } from './bench.ts'
import { expectAttendsAsDecoded } from './coded-attention.ts'

const table = (bits: number): Float32Array =>
  Float32Array.from({ length: 2 ** bits }, (_, i) => Math.sinh((4 * i) / (2 ** bits - 1) - 2))

/** The same, from 0.05 to 0.95. */
const between = (bits: number): Float32Array =>
  table(bits).map((value) => 0.5 + (0.45 * value) / Math.sinh(2))

const GRIDS: readonly (readonly [name: string, grid: CacheGrid])[] = [
  ['halves', HALVES],
  ...([2, 3, 4, 8] as const).flatMap((bits) => [
    [
      `${bits} bits, a token and a head`,
      { bits, tokens: 1, channels: 16, symmetric: false },
    ] as const,
    [
      `${bits} bits, 8 tokens of a channel`,
      { bits, tokens: 8, channels: 1, symmetric: false },
    ] as const,
    [`${bits} bits, symmetric`, { bits, tokens: 8, channels: 8, symmetric: true }] as const,
    [
      `${bits} bits, a table`,
      { bits, tokens: 1, channels: 32, symmetric: true, table: table(bits) },
    ] as const,
    [
      `${bits} bits, a table from the least number on`,
      { bits, tokens: 8, channels: 1, symmetric: false, table: between(bits) },
    ] as const,
    [
      `${bits} bits, ranges that are cut`,
      { bits, tokens: 1, channels: 16, symmetric: false, range: 0.75 },
    ] as const,
  ]),
]

/** Of heads of 32 and 64: scales for a whole head or half of one, and for channels of some tokens. */
export const LONG_GRIDS: readonly (readonly [name: string, grid: CacheGrid])[] = [
  ['halves', HALVES],
  ...([2, 3, 4, 8] as const).flatMap((bits) => [
    [`${bits} bits of a token`, { bits, tokens: 1, channels: 32, symmetric: false }] as const,
    [`${bits} bits, symmetric`, { bits, tokens: 1, channels: 32, symmetric: true }] as const,
    [`${bits} bits of a channel`, { bits, tokens: 24, channels: 1, symmetric: false }] as const,
  ]),
  ['4 bits of two heads', { bits: 4, tokens: 1, channels: 64, symmetric: false }],
  ['4 bits, a table', { bits: 4, tokens: 1, channels: 32, symmetric: true, table: table(4) }],
  [
    '3 bits, a table from the least number on',
    { bits: 3, tokens: 1, channels: 32, symmetric: false, table: between(3) },
  ],
]

export const WIDTH = 32

export function store(
  { zeros }: Side,
  grid: CacheGrid,
  capacity: number,
  width = WIDTH,
): CodedRows {
  return {
    grid,
    codes: zeros(capacity, codeColumns(grid, width), 'u32'),
    scales: zeros(Math.ceil(capacity / grid.tokens), scaleColumns(grid, width), 'u16'),
  }
}

export function cacheContract(open: BenchOf, it: Declare): void {
  for (const [name, grid] of GRIDS) {
    it(`codes and decodes: ${name}`, async () => {
      const random = seededRandom(grid.bits)
      const [rows, capacity] = [16, 40]
      const x = randomValues(rows * WIDTH, random)
      const [actual, expected] = await open().both(async (side) => {
        const { kernels, up, zeros } = side
        const past = store(side, grid, capacity)
        kernels.encodeRows(past, 8, up(x, rows, WIDTH))
        // A block anew, as after forgetting.
        kernels.encodeRows(past, 16, up(x.subarray(0, 8 * WIDTH), 8, WIDTH))
        const out = zeros(rows, WIDTH)
        kernels.decodeRows(out, past, 8)
        return kernels.read(out)
      })
      // Numbers that lie between two codes may go either way: then both are half a step off.
      const input = Float32Array.from([...x.subarray(0, 8 * WIDTH), ...x.subarray(0, 8 * WIDTH)])
      let apart = 0
      for (let i = 0; i < actual.length; i++) {
        if (Math.abs(actual[i] - expected[i]) <= 1e-5) continue
        apart++
        const [ours, theirs] = [actual[i], expected[i]].map((value) => Math.abs(value - input[i]))
        expect(Math.abs(ours - theirs) < 2e-3, `value ${i}: ${actual[i]}, ${expected[i]}`).toBe(
          true,
        )
      }
      expect(apart <= 2, `${apart} values differ`).toBe(true)
    })

    it.each([
      [1, 24, 8, 2, 2, 16],
      [1, 16, 0, 4, 4, 8],
      [3, 16, 5, 4, 2, 16],
      [1, 0, 3, 2, 2, 16],
      [19, 8, 1, 6, 2, 16],
    ])(
      `attends over ${name}: %i rows, %i in codes, %i before, %i heads on %i of %i`,
      async (...numbers) => {
        const [rows, coded, before, heads, keyValueHeads, headSize] = numbers
        const random = seededRandom(rows + coded)
        const [q, k, v, pastKeys, pastValues] = [
          rows * heads * headSize,
          (before + rows + 2) * WIDTH,
          (before + rows + 2) * WIDTH,
          coded * WIDTH,
          coded * WIDTH,
        ].map((count) => randomValues(count, random))
        const fresh = before + rows
        // What lies past the newest position must not matter.
        k.fill(Number.NaN, fresh * WIDTH)
        v.fill(Number.NaN, fresh * WIDTH)
        const [actual, expected] = await open().both(async (side) => {
          const { kernels, up, zeros } = side
          const [keys, values] = [pastKeys, pastValues].map((past) => {
            const codes = store(side, grid, 32)
            if (coded > 0) kernels.encodeRows(codes, 0, up(past, coded, WIDTH))
            return codes
          })
          const out = zeros(rows, heads * headSize)
          kernels.attendCoded(
            out,
            up(q, rows, heads * headSize),
            keys,
            values,
            coded,
            up(k, fresh + 2, WIDTH),
            up(v, fresh + 2, WIDTH),
            { heads, keyValueHeads, headSize, scale: 0.3, start: coded + before },
          )
          return kernels.read(out)
        })
        if (keyValueHeads * headSize !== WIDTH)
          throw new Error('a shape that does not fit the rows')
        // A code that rounds the other way moves an output by a step of its weight.
        expectClose(actual, expected, 'attention over codes', 2e-2, heads * headSize)
      },
    )
  }

  for (const [name, grid] of LONG_GRIDS) {
    it.each([
      [1, 288, 4, 3, 1, 64],
      [2, 264, 3, 10, 2, 32],
      [3, 264, 260, 4, 2, 32],
      [7, 264, 3, 4, 2, 32],
    ])(
      `attends over what it decodes, ${name}: %i rows, %i in codes, %i before, %i heads on %i of %i`,
      async (...sizes) => {
        const [rows, coded, , , keyValueHeads, headSize] = sizes
        const width = keyValueHeads * headSize
        const random = seededRandom(coded + rows)
        const side = open()
        const codes = [0, 1].map(() => {
          const past = store(side, grid, 288, width)
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

  it('keeps halves to the bit, and the largest instead of more', async () => {
    const { kernels, up, zeros } = open()
    const past = store({ kernels, up, zeros }, HALVES, 1)
    const x = Float32Array.from({ length: WIDTH }, (_, i) => (i % 2 ? -1 : 1) * 2 ** (i - 24))
    const given = [7e4, -1e30, 65504, 0, -0, 1 + 2 ** -11, 1 + 3 * 2 ** -11, 2 ** -25, 3 * 2 ** -26]
    x.set(given, 0)
    kernels.encodeRows(past, 0, up(x, 1, WIDTH))
    const out = zeros(1, WIDTH)
    kernels.decodeRows(out, past, 0)
    const kept = [65504, -65504, 65504, 0, 0, 1, 1 + 2 ** -9, 0, 2 ** -24]
    const expected = [...kept, ...x.subarray(given.length)].map((value) => value + 0)
    expect([...(await kernels.read(out))].map((value) => value + 0)).toEqual(
      expected.map((value) => (Math.abs(value) < 65504 ? value : Math.sign(value) * 65504)),
    )
  })

  it('a block of equal numbers, and of zeros, is met', async () => {
    for (const [name, grid] of GRIDS) {
      const [actual] = await open().both(async (side) => {
        const { kernels, up, zeros } = side
        const past = store(side, grid, 8)
        kernels.encodeRows(
          past,
          0,
          up(new Float32Array(8 * WIDTH).fill(grid.symmetric ? 0 : 2.5), 8, WIDTH),
        )
        const out = zeros(8, WIDTH)
        kernels.decodeRows(out, past, 0)
        return kernels.read(out)
      })
      expect(
        [...actual].every((x) => Math.abs(x - (grid.symmetric ? 0 : 2.5)) < 1e-6),
        name,
      ).toBe(true)
    }
  })

  it('refuses what does not fit', async () => {
    const side = open()
    const { kernels, zeros } = side
    const grid: CacheGrid = { bits: 4, tokens: 8, channels: 1, symmetric: false }
    const past = store(side, grid, 16)
    await expectRefusal('a part of a block', () => kernels.encodeRows(past, 0, zeros(7, WIDTH)))
    await expectRefusal('past the end', () => kernels.encodeRows(past, 16, zeros(8, WIDTH)))
    await expectRefusal('no start of a block', () => kernels.encodeRows(past, 4, zeros(8, WIDTH)))
    await expectRefusal('another width', () => kernels.encodeRows(past, 0, zeros(8, 24)))
    await expectRefusal('rows that are not there', () =>
      kernels.decodeRows(zeros(8, WIDTH), past, 12),
    )
    await expectRefusal('5 bits', () =>
      kernels.encodeRows({ ...past, grid: { ...grid, bits: 5 as 4 } }, 0, zeros(8, WIDTH)),
    )
    await expectRefusal('halves that share scales', () =>
      kernels.encodeRows({ ...past, grid: { ...HALVES, tokens: 8 } }, 0, zeros(8, WIDTH)),
    )
    await expectRefusal('a table out of order', () =>
      kernels.encodeRows(
        {
          ...past,
          grid: { ...grid, symmetric: true, table: new Float32Array(16).map((_, i) => -i) },
        },
        0,
        zeros(8, WIDTH),
      ),
    )
    await expectRefusal('a table beyond the range', () =>
      kernels.encodeRows(
        { ...past, grid: { ...grid, table: Float32Array.from({ length: 16 }, (_, i) => i) } },
        0,
        zeros(8, WIDTH),
      ),
    )
    const shape = { heads: 2, keyValueHeads: 2, headSize: 16, scale: 1, start: 16 }
    await expectRefusal('too few new keys', () =>
      kernels.attendCoded(
        zeros(2, 32),
        zeros(2, 32),
        past,
        past,
        16,
        zeros(1, 32),
        zeros(2, 32),
        shape,
      ),
    )
  })
}
