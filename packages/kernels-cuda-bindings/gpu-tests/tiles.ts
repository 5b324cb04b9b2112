/** Tensor cores: fragments as the hardware documents them, and products that round x and nothing else. */

import {
  type Blocks,
  decodeFloat,
  encodeFloat,
  FLOAT_FORMATS,
  floatGrid,
  floatToHalf,
  halfToFloat,
  type Kernels,
  perGroup,
  perRow,
  perTensor,
  type QuantizedMatrix,
  seededRandom,
  signedGrid,
  toNumbers,
  unsignedGrid,
} from '@lowbit/core'
import { denseValues, randomOrder, randomValues, scalarMatrix } from '@lowbit/testing'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openDevice } from '../src/driver/device.ts'
import { cuda } from '../src/index.ts'

const half = (x: number): number => halfToFloat(floatToHalf(x))

const typed = (type: 'f16' | 'bf16' | 'f8_e4m3') => ({
  bits: (x: number): number => encodeFloat(FLOAT_FORMATS[type], x),
  value: (bits: number): number => decodeFloat(FLOAT_FORMATS[type], bits),
})
export const AS = { f16: typed('f16'), bf16: typed('bf16'), fp8: typed('f8_e4m3') }

/** The compute capabilities that have them. */
const NEEDED = { f16: 7.5, bytes: 7.5, bf16: 8, fp8: 8.9 }

/**
 * Where the numbers of a lane's registers lie (PTX ISA, mma.m16n8k16 of f16 and bf16, mma.m16n8k32 of bytes and E4M3).
 */
const FRAGMENTS = {
  f16: {
    ...{ depth: 16, each: 2 },
    a: (g: number, t: number, i: number) => ({
      row: i < 2 || (i >= 4 && i < 6) ? g : g + 8,
      column: t * 2 + (i % 2) + (i >= 4 ? 8 : 0),
    }),
    b: (g: number, t: number, i: number) => ({
      row: t * 2 + (i % 2) + (i >= 2 ? 8 : 0),
      column: g,
    }),
  },
  bytes: {
    ...{ depth: 32, each: 4 },
    a: (g: number, t: number, i: number) => ({
      row: i < 4 || (i >= 8 && i < 12) ? g : g + 8,
      column: t * 4 + (i % 4) + (i >= 8 ? 16 : 0),
    }),
    b: (g: number, t: number, i: number) => ({
      row: t * 4 + (i % 4) + (i >= 4 ? 16 : 0),
      column: g,
    }),
  },
} as const

/** On the GPU of this library: the system's by default. */
export function describeTiles(library?: string): void {
  describe('fragments', () => fragments(library))
  describe('products on tensor cores', () => products(library))
}

function fragments(library: string | undefined): void {
  it.each(['f16', 'bf16', 'bytes', 'fp8'] as const)(
    '%s: each lane has its sums of A · B + C',
    async (kind) => {
      const device = openDevice({ library, ordinal: 0, memoryLimit: Number.POSITIVE_INFINITY })
      if (device.capability < NEEDED[kind]) {
        device.dispose()
        return
      }
      const { depth, each, a, b } = FRAGMENTS[kind === 'f16' || kind === 'bf16' ? 'f16' : 'bytes']
      const random = seededRandom(depth)
      const number = (low: number, high: number): number =>
        kind === 'bytes'
          ? low + Math.floor(random() * (high - low))
          : AS[kind].value(AS[kind].bits(random() * 4 - 2))
      const left = Array.from({ length: 16 * depth }, () => number(0, 256))
      const right = Array.from({ length: depth * 8 }, () => number(-128, 128))
      const start = Array.from({ length: 16 * 8 }, (_, i) => i - 40)
      const bits = (x: number): number => (kind === 'bytes' ? x & 255 : AS[kind].bits(x))
      const registers = (count: number, from: (lane: number, i: number) => number): Uint32Array =>
        Uint32Array.from({ length: 32 * count }, (_, n) => {
          const [lane, register] = [Math.floor(n / count), n % count]
          let word = 0
          for (let i = 0; i < each; i++) {
            word |= from(lane, register * each + i) << ((i * 32) / each)
          }
          return word
        })
      const place = (lane: number) => [lane >> 2, lane % 4] as const
      const sums = Float32Array.from({ length: 128 }, (_, n) => {
        const [g, t] = place(n >> 2)
        return start[(g + (n % 4 >= 2 ? 8 : 0)) * 8 + 2 * t + (n % 2)]
      })
      const c = device.place(sums)
      device.run(
        `fragments_${kind}`,
        {
          a: device.place(
            registers(4, (lane, i) => {
              const { row, column } = a(...place(lane), i)
              return bits(left[row * depth + column])
            }),
          ),
          b: device.place(
            registers(2, (lane, i) => {
              const { row, column } = b(...place(lane), i)
              return bits(right[row * 8 + column])
            }),
          ),
          c,
        },
        1,
      )
      const found = new Float32Array(128)
      await device.read(c, found)
      device.dispose()
      for (const [n, value] of found.entries()) {
        const [g, t] = place(n >> 2)
        const [row, column] = [g + (n % 4 >= 2 ? 8 : 0), 2 * t + (n % 2)]
        let sum = start[row * 8 + column]
        for (let k = 0; k < depth; k++) sum += left[row * depth + k] * right[k * 8 + column]
        expect(Math.abs(value - sum), `lane ${n >> 2}, sum ${n % 4}`).toBeLessThan(1e-4)
      }
    },
  )
}

type Activations = 'f16' | 'bf16' | 'int8' | 'fp8'

/** x as the kernels see it. */
export function rounded(x: Float32Array, columns: number, activations: Activations): Float64Array {
  const out = new Float64Array(x.length)
  for (let row = 0; row < x.length; row += columns) {
    const line = x.subarray(row, row + columns)
    if (activations === 'f16') {
      const factor =
        2 ** Math.floor(Math.log2(line.reduce((most, v) => Math.max(most, Math.abs(v)), 0)))
      for (const [i, v] of line.entries()) out[row + i] = half(v / factor) * factor
      continue
    }
    if (activations === 'bf16') {
      for (const [i, v] of line.entries()) out[row + i] = AS.bf16.value(AS.bf16.bits(v))
      continue
    }
    if (activations === 'fp8') {
      const most = line.reduce((least, v) => Math.max(least, Math.abs(v)), 0)
      const { bits, value } = AS.fp8
      for (const [i, v] of line.entries()) {
        out[row + i] = (value(bits(v * Math.fround(448 / most))) * most) / 448
      }
      continue
    }
    for (let from = 0; from < columns; from += 32) {
      const block = line.subarray(from, from + 32)
      const most = block.reduce((least, v) => Math.max(least, Math.abs(v)), 0)
      for (const [i, v] of block.entries()) {
        const code = Math.round(Math.fround(v * Math.fround(127 / most)))
        out[row + from + i] = most === 0 ? 0 : (code * most) / 127
      }
    }
  }
  return out
}

interface Sample {
  readonly name: string
  readonly matrix: QuantizedMatrix
  readonly tokens: readonly number[]
}

function samples(activations: Activations): Sample[] {
  if (activations === 'fp8') return samplesOfE4M3()
  const random = seededRandom(90)
  const wide = { asymmetric: true }
  const one = (bits: number, rows: number, columns: number, group: number, more = {}) =>
    scalarMatrix(unsignedGrid(bits), rows, columns, perGroup(group), random, { ...wide, ...more })
  const symmetric = scalarMatrix(signedGrid(4), 37, 200, perRow(200), random)
  return [
    { name: 'int4, groups of 32', matrix: one(4, 70, 330, 32), tokens: [1, 8, 9, 17, 33, 70] },
    { name: 'int4, groups of 96', matrix: one(4, 16, 700, 96), tokens: [2, 12] },
    {
      name: 'int4, scales of f32',
      matrix: one(4, 33, 130, 64, { scaleType: 'f32' }),
      tokens: [5, 40],
    },
    { name: 'int4 with a bias', matrix: one(4, 33, 130, 64, { bias: true }), tokens: [3] },
    { name: 'int4, a scale a row', matrix: symmetric, tokens: [1, 20] },
    { name: 'int8, groups of 64', matrix: one(8, 70, 330, 64), tokens: [1, 11, 25, 65] },
    { name: 'int8, one chunk', matrix: one(8, 5, 30, 32), tokens: [4, 34] },
    {
      name: 'int4, its columns in another order',
      matrix: { ...one(4, 20, 128, 32), order: randomOrder(128, random) },
      tokens: [1, 6],
    },
  ]
}

function samplesOfE4M3(): Sample[] {
  const random = seededRandom(91)
  const one = (rows: number, columns: number, blocks: Blocks, more = {}) =>
    scalarMatrix(floatGrid(FLOAT_FORMATS.f8_e4m3), rows, columns, blocks, random, more)
  const bare = one(33, 130, perGroup(64))
  return [
    { name: 'E4M3, a scale for all', matrix: one(70, 330, perTensor(70, 330)), tokens: [1, 9, 70] },
    { name: 'E4M3, groups of 32', matrix: one(37, 200, perGroup(32)), tokens: [8, 17, 33] },
    {
      name: 'E4M3, a scale a row, with a bias',
      matrix: one(16, 64, perRow(64), { bias: true }),
      tokens: [2],
    },
    {
      name: 'E4M3, scales of rows besides',
      matrix: { ...bare, rowScale: toNumbers('f32', randomValues(33, random)) },
      tokens: [5, 40],
    },
  ]
}

function products(library: string | undefined): void {
  let kernels: Kernels
  beforeAll(async () => {
    kernels = await cuda({ library })
  })
  afterAll(() => kernels.dispose())

  describe.each(['f16', 'int8', 'fp8'] as const)('x in %s', (activations) => {
    it.each(samples(activations).map((sample) => [sample.name, sample] as const))(
      '%s: nothing but x is rounded',
      async (_, { matrix, tokens }) => {
        const { rows, columns, order } = matrix
        const weight = kernels.load(matrix, { activations })
        expect(weight.variant).toMatch(new RegExp(`${activations} on tensor cores$`))
        const dense = denseValues(matrix)
        const taken = Uint32Array.of(rows - 1, 0, Math.floor(rows / 2))
        const [gathered, all] = [kernels.tensor(3, columns), kernels.tensor(rows, columns)]
        kernels.gather(gathered, weight, taken)
        kernels.gather(all, weight)
        const [some, whole] = [await kernels.read(gathered), await kernels.read(all)]
        for (const [i, value] of dense.entries()) {
          expect(Math.abs(whole[i] - value), `weight ${i}`).toBeLessThan(1e-6)
        }
        for (const [i, row] of taken.entries()) {
          const line = whole.subarray(row * columns, (row + 1) * columns)
          expect(some.subarray(i * columns, (i + 1) * columns)).toEqual(line)
        }
        for (const count of tokens) {
          const random = seededRandom(count)
          // Rows of very different sizes.
          const x = randomValues(count * columns, random).map(
            (v, i) => v * 10 ** ((Math.floor(i / columns) % 5) * 4 - 8),
          )
          const start = randomValues(count * rows, random)
          const [input, out] = [
            kernels.upload(x, count, columns),
            kernels.upload(start, count, rows),
          ]
          kernels.matmul(out, input, weight, { accumulate: true })
          const added = (await kernels.read(out)).slice()
          kernels.matmul(out, input, weight)
          const found = await kernels.read(out)
          // The order of the stored columns decides which 32 share a factor.
          const stored = order ? x.map((_, i) => x[i - (i % columns) + order[i % columns]]) : x
          const seen = rounded(stored, columns, activations)
          const at = (k: number): number => (order ? order[k] : k)
          for (let token = 0; token < count; token++) {
            for (let n = 0; n < rows; n++) {
              let sum = 0
              let reach = 0
              for (let k = 0; k < columns; k++) {
                const product = seen[token * columns + k] * dense[n * columns + at(k)]
                sum += product
                reach += Math.abs(seen[token * columns + k]) * 0.1
              }
              const i = token * rows + n
              const what = `${count} tokens, out[${token}, ${n}]`
              expect(Math.abs(found[i] - sum), what).toBeLessThan(3e-6 * reach + 1e-30)
              const bound = 3e-6 * (reach + Math.abs(start[i]))
              expect(Math.abs(added[i] - start[i] - sum), `${what}, added`).toBeLessThan(bound)
            }
          }
          kernels.free(input, out)
        }
        kernels.free(gathered, all)
        kernels.unload(weight)
        expect(kernels.bytes).toBe(0)
      },
    )

    it('what has no tiles is decoded to f16 where there are many rows, and says so', () => {
      const matrix = scalarMatrix(unsignedGrid(2), 8, 64, perGroup(32), seededRandom(1))
      const weight = kernels.load(matrix, { activations })
      expect(weight.variant).toMatch(/, f16 from 5 rows on on tensor cores$/)
      kernels.unload(weight)
    })
  })

  it('a weight in tiles takes little more than its codes', () => {
    const matrix = scalarMatrix(unsignedGrid(4), 64, 512, perGroup(128), seededRandom(2), {
      asymmetric: true,
    })
    const weight = kernels.load(matrix, { activations: 'f16' })
    expect(weight.bytes).toBe((64 * 512) / 2 + 64 * 4 * 4)
    kernels.unload(weight)
  })

  it('memory that runs out while a weight is packed is given back', async () => {
    const small = await cuda({ library, memoryLimit: 30_000 })
    const matrix = scalarMatrix(unsignedGrid(4), 64, 512, perGroup(128), seededRandom(2))
    expect(() => small.load(matrix, { activations: 'f16' })).toThrow(/the limit is 30000/)
    expect(small.bytes).toBe(0)
    small.dispose()
  })
}
