/** Every shader compiles and every pipeline is made, on Dawn's null backend, which needs no GPU and runs nothing. */

import {
  type CacheGrid,
  codeColumns,
  ENTRIES,
  HALVES,
  type Kernels,
  normalFloatGrid,
  scaleColumns,
  seededRandom,
  unsignedGrid,
} from '@lowbit/core'
import { denseSamples, scalarSamples, structuredSamples, thinSamples } from '@lowbit/testing'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { PLAIN } from './gpu/device.ts'
import { type WebGpuKernels, type WebGpuOptions, webgpu } from './index.ts'

const dawn = await import('webgpu').then(
  () => true,
  () => false,
)

/** Devices die with the object that they come from. */
const held: unknown[] = []

/** Takes what has been recorded to the device, which throws what it refuses. */
const settle = (kernels: Kernels) => kernels.read(kernels.tensor(1, 1))

const title = dawn ? 'shaders' : 'shaders (skipped: the optional module webgpu is not installed)'

const subgroups = {
  ...PLAIN,
  product: 'subgroups',
  vector: 'subgroups',
  matrix: 'subgroups',
} as const
const rounding = { ...PLAIN, vectorInt8: 'dots', matrixInt8: 'dots', matrixF16: 'f16' } as const
const VARIANTS: readonly (readonly [string, WebGpuOptions])[] = [
  ['without optional features', { features: [] }],
  ['by subgroups', { choices: subgroups }],
  ['with x in fewer bits', { choices: rounding }],
]

describe.skipIf(!dawn).each(VARIANTS)(`${title} %s`, (_, options) => {
  let kernels: WebGpuKernels
  beforeAll(async () => {
    kernels = await webgpu({ switches: ['backend=null'], ...options })
  })
  afterAll(() => kernels?.dispose())

  it('decode every kind of matrix, for few rows, many rows and gathered ones', async () => {
    const samples = [
      ...scalarSamples(),
      ...structuredSamples(),
      ...thinSamples(),
      ...denseSamples(),
    ]
    const all = samples.flatMap((sample) =>
      (['f32', 'f16', 'int8'] as const).map((activations) => ({ ...sample, activations })),
    )
    for (const { matrix, name, activations } of all) {
      const weight = kernels.load(matrix, { activations })
      for (const rows of [1, 2, 3, 4, 9]) {
        const [x, out] = [kernels.tensor(rows, matrix.columns), kernels.tensor(rows, matrix.rows)]
        kernels.matmul(out, x, weight)
        kernels.free(x, out)
      }
      const rows = kernels.tensor(matrix.rows, matrix.columns)
      kernels.gather(rows, weight)
      kernels.free(rows)
      kernels.unload(weight)
      await expect(settle(kernels), name).resolves.toHaveLength(1)
    }
  })

  it('do what a decoder does', async () => {
    const t = (rows: number, columns: number) => kernels.tensor(rows, columns)
    const shape = { heads: 4, keyValueHeads: 2, headSize: 8, scale: 1, start: 3 }
    kernels.rmsNorm(t(3, 8), t(3, 8), t(1, 8), 1e-5)
    kernels.layerNorm(t(3, 8), t(3, 8), t(1, 8), t(1, 8), 1e-5)
    kernels.add(t(3, 8), t(3, 8))
    kernels.rope(t(3, 32), t(9, 4), t(9, 4), 8, 2)
    for (const kind of ['silu', 'gelu', 'gelu_erf', 'relu'] as const) {
      kernels.activate(t(3, 8), t(3, 8), t(3, 8), kind)
    }
    kernels.attention(t(2, 32), t(2, 32), t(6, 16), t(6, 16), shape)
    kernels.attention(t(70, 32), t(70, 32), t(80, 16), t(80, 16), shape)
    kernels.softmax(t(3, 8))
    kernels.crossEntropy(t(3, 1), t(3, 8), Uint32Array.of(0, 1, 2))
    kernels.divergence(t(3, 1), t(3, 8), t(3, 8))
    kernels.crossEntropyGradient(t(3, 8), t(3, 8), Uint32Array.of(0, 1, 2), 1)
    kernels.divergenceGradient(t(3, 8), t(3, 8), t(3, 8), 1)
    for (const temperature of [0, 1]) {
      await kernels.sample(t(1, 2000), { temperature, topK: 0, topP: 1, random: 0 })
    }
    await settle(kernels)
  })

  it('do the linear algebra of calibration', async () => {
    const t = (rows: number, columns: number) => kernels.tensor(rows, columns)
    const order = Uint32Array.from({ length: 70 }, (_, i) => 69 - i)
    kernels.multiply(t(5, 7), t(5, 3), t(7, 3))
    kernels.multiplyTransposed(t(5, 7), t(5, 3), t(3, 7), { accumulate: true })
    kernels.gram(t(7, 7), t(5, 7), 1)
    kernels.crossGram(t(3, 7), t(5, 3), t(5, 7), 1)
    await kernels.factorInverse(t(70, 70), t(70, 70), 1, order)
    kernels.diagonal(t(1, 7), t(7, 7))
    kernels.permuteColumns(t(2, 70), t(2, 70), order)
    kernels.columnMoments(t(4, 7), t(5, 7))
    kernels.scale(t(5, 7), t(5, 7), { rows: t(5, 1), columns: t(1, 7), bias: t(1, 7) })
    for (const block of [1, 2, 64]) {
      kernels.rotate(t(3, 128), { block, signs: new Uint8Array(16) })
    }
    kernels.times(t(2, 2), t(2, 2))
    kernels.transpose(t(3, 9), t(5, 3))
    await kernels.distance(t(4, 4), t(4, 4), t(4, 4))
    await settle(kernels)
  })

  it('quantize', async () => {
    const t = (rows: number, columns: number) => kernels.tensor(rows, columns)
    for (const grid of [unsignedGrid(4), normalFloatGrid(4)]) {
      const codes = kernels.tensor(5, 70, 'u8')
      const rounding = { grid, blockRows: 1, blockColumns: 32 }
      const [w, s, h] = [t(5, 70), t(5, 3), t(70, 70)]
      const search = { candidates: 3, step: 0.1 }
      const fit = { ...rounding, search, asymmetric: false, scaleType: 'f16' } as const
      kernels.fit(s, undefined, w, { ...fit, importance: t(1, 70) })
      kernels.round(codes, w, w, s, undefined, rounding)
      kernels.feedback(codes, w, h, s, undefined, { ...rounding, from: 0, to: 70 })
      kernels.descend(codes, t(5, 70), w, h, s, undefined, { ...rounding, damping: 0.1 })
    }
    await settle(kernels)
  })

  it('code keys and values', async () => {
    const t = (rows: number, columns: number) => kernels.tensor(rows, columns)
    const shape = { heads: 4, keyValueHeads: 2, headSize: 16, scale: 1, start: 9 }
    const table = Float32Array.from({ length: 16 }, (_, i) => i)
    const grids = [
      HALVES,
      { bits: 3, tokens: 8, channels: 8, symmetric: false },
      { bits: 2, tokens: 8, channels: 1, symmetric: false },
      { bits: 4, tokens: 1, channels: 16, symmetric: true, table },
      { ...HALVES, bits: 8, coupled: 4 },
    ] as const
    const past = [...grids, ...grids.slice(1, 4)].map((each, i) => {
      const grid: CacheGrid = each
      const codes = kernels.tensor(16, codeColumns(grid, 32), 'u32')
      const scales = kernels.tensor(16 / grid.tokens, scaleColumns(grid, 32), 'u16')
      const codebooks = grid.coupled && t((32 / grid.coupled) * ENTRIES, grid.coupled)
      const outliers = i < grids.length ? undefined : kernels.tensor(16, 6, 'u16')
      return { grid, codes, scales, ...(codebooks && { codebooks }), ...(outliers && { outliers }) }
    })
    for (const [i, keys] of past.entries()) {
      kernels.encodeRows(keys, 0, t(8, 32))
      kernels.decodeRows(t(8, 32), keys, 0)
      for (const values of [keys, past[(i + 1) % past.length]]) {
        kernels.attendCoded(t(1, 64), t(1, 64), keys, values, 8, t(2, 32), t(2, 32), shape)
        kernels.attendCoded(t(16, 64), t(16, 64), keys, values, 8, t(17, 32), t(17, 32), shape)
      }
    }
    await settle(kernels)
  })

  it('measure', async () => {
    await kernels.peak()
  })

  it('quantize vectors', async () => {
    const t = (rows: number, columns: number) => kernels.tensor(rows, columns)
    const c = (rows: number, columns: number) => kernels.tensor(rows, columns, 'u16')
    for (const length of [1, 4, 6, 16]) {
      for (const entries of [5, 100, 1030]) {
        const tables = [t(entries, length), t(3, length)]
        const pass = {
          length,
          tables: [entries, 3].map((n, i) => ({ values: tables[i], entries: n })),
        }
        const [w, h] = [t(20, 70), t(70, 70)]
        const factors = { columnScale: t(1, 70), columnBias: t(1, 70), rowScale: t(20, 1) }
        const down = [c(Math.ceil(20 / length), 70), c(Math.ceil(20 / length), 70)]
        const along = [c(20, Math.ceil(70 / length)), c(20, Math.ceil(70 / length))]
        kernels.feedbackVectors(down, w, h, { ...pass, ...factors, along: 'out' })
        kernels.feedbackVectors(along, w, h, { ...pass, along: 'in', rowScale: factors.rowScale })
        kernels.decodeVectors(w, down, { ...pass, along: 'out' })
        kernels.scatterVectors(tables, w, down, { ...pass, along: 'out' })
        const neighbours = [c(entries, 2), c(3, 2)]
        for (const [i, near] of neighbours.entries()) kernels.neighbours(near, tables[i])
        const more = { damping: 0.1, neighbours }
        kernels.descendVectors(down, t(20, 70), w, h, {
          ...pass,
          ...factors,
          along: 'out',
          ...more,
        })
        kernels.nearest(c(9, 1), t(9, length), tables[0], t(9, 1))
        kernels.clusterSums(t(entries, length + 1), t(9, length), c(9, 1), t(9, 1))
        await settle(kernels)
      }
    }
    for (const seeding of ['mahalanobis', 'kmeans++'] as const) {
      kernels.cluster(t(4, 3), t(9, 3), { groupRows: 5, entries: 2, iterations: 2, seeding })
    }
    await settle(kernels)
  })

  it('fit tables, and train', async () => {
    const t = (rows: number, columns: number) => kernels.tensor(rows, columns)
    const codes = kernels.tensor(6, 9, 'u8')
    const blocks = { blockRows: 2, blockColumns: 9, rowScale: t(6, 1) }
    for (const method of ['kmeans', 'uniform'] as const) {
      kernels.fitTables(t(3, 4), t(6, 9), { ...blocks, method, importance: t(1, 9) })
    }
    kernels.decodeCodes(t(6, 9), codes, t(3, 4), blocks)
    kernels.sumByCode(t(3, 4), t(6, 9), codes, blocks)
    kernels.softAssign(t(5, 3), t(5, 2), t(3, 2), { temperature: 1, gumbel: 3 })
    kernels.softmaxGradient(t(5, 3), t(5, 3), t(5, 3), 1)
    kernels.adam(t(2, 3), t(2, 3), t(2, 3), t(2, 3), { step: 1, rate: 0.1 })
    // Nothing runs here, so that what it counts is left to chance.
    const counted = kernels.distinct(t(6, 1), t(6, 1), kernels.tensor(2, 3, 'u16'), t(2, 3))
    await counted.catch(({ message }) => expect(message).toMatch(/8 bits/))
    const input = t(3, 8)
    const how = { kind: 'layer', epsilon: 1e-5 } as const
    kernels.normGradient({ input, gain: t(1, 8), bias: t(1, 8) }, t(3, 8), t(3, 8), t(1, 8), how)
    kernels.activateGradient({ gate: input, up: t(3, 8) }, t(3, 8), t(3, 8), t(3, 8), 'gelu')
    const shape = { heads: 2, keyValueHeads: 1, headSize: 4, scale: 1, start: 1 }
    const [q, k, v] = [t(3, 8), t(5, 4), t(5, 4)]
    kernels.attentionGradient({ q, k, v }, t(3, 8), t(3, 8), t(5, 4), t(5, 4), shape)
    await settle(kernels)
  })

  it('use memory that was given back until they have run', async () => {
    // More than is kept for later.
    const large = Array.from({ length: 5 }, () => kernels.tensor(4096, 4096))
    for (const [i, tensor] of large.entries()) kernels.copy(tensor, large[(i + 1) % large.length])
    kernels.free(...large)
    await expect(settle(kernels)).resolves.toHaveLength(1)
  })

  it('a device that computes wrong is refused by name', async () => {
    const { createDevice } = await import('./gpu/device.ts')
    const { findAdapter, findGpu } = await import('./gpu/adapter.ts')
    const { measureChoices } = await import('./measure.ts')
    const gpu = await findGpu(['backend=null'])
    held.push(gpu)
    // It computes nothing at all.
    const device = createDevice(await (await findAdapter(gpu)).requestDevice())
    await expect(measureChoices(device, 'null')).rejects.toThrow(/null computes wrong products/)
    device.dispose()
  })

  it('that are wrong are an error with the shader’s words', async () => {
    const { elementwise } = await import('./gpu/shader.ts')
    const { createDevice } = await import('./gpu/device.ts')
    const { findAdapter, findGpu } = await import('./gpu/adapter.ts')
    const gpu = await findGpu(['backend=null'])
    held.push(gpu)
    const device = createDevice(await (await findAdapter(gpu)).requestDevice())
    const parts = { reads: {}, writes: { out: 'f32' }, params: {} } as const
    const wrong = elementwise('wrong', { ...parts, body: 'no_such_thing(i);' })
    const out = device.allocate(4)
    const random = seededRandom(1)
    device.write(out, Float32Array.from({ length: 4 }, random))
    await expect(async () => {
      device.run(wrong, { out }, { count: 4 }, 1)
      await device.read(out)
    }).rejects.toThrow(/no_such_thing/)
    device.dispose()
  })
})
