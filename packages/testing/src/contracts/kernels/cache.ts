/** Keys and values in few bits: coding, and attention over codes. */

import { type CacheGrid, seededRandom } from '@lowbit/core'
import type { Declare } from '../../checks/declare.ts'
import { expect } from '../../checks/expect.ts'
import { randomValues } from '../../random.ts'
import { type BenchOf, expectClose, expectRefusal, type Side } from './bench.ts'

const table = (bits: number): Float32Array =>
  Float32Array.from({ length: 2 ** bits }, (_, i) => Math.sinh((4 * i) / (2 ** bits - 1) - 2))

const GRIDS: readonly (readonly [name: string, grid: CacheGrid])[] = [
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
  ]),
]

const WIDTH = 32

function store(
  { zeros }: Side,
  { bits, tokens, channels, symmetric }: CacheGrid,
  capacity: number,
) {
  const blocks = (WIDTH / channels) * (symmetric ? 1 : 2)
  return {
    codes: zeros(capacity, (WIDTH * bits) / 8, 'u8'),
    scales: zeros(Math.ceil(capacity / tokens), blocks, 'u16'),
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
        const past = { ...store(side, grid, capacity), grid }
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
            const codes = { ...store(side, grid, 32), grid }
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

  it('a block of equal numbers, and of zeros, is met', async () => {
    for (const [name, grid] of GRIDS) {
      const [actual] = await open().both(async (side) => {
        const { kernels, up, zeros } = side
        const past = { ...store(side, grid, 8), grid }
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
    const past = { ...store(side, grid, 16), grid }
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
