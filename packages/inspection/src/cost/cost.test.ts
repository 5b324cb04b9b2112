/** The formulas against a count of what the decoder really asks of its kernels. */

import {
  type AttentionShape,
  isQuantized,
  type Kernels,
  measureMatrix,
  type Tensor,
} from '@lowbit/core'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { decoderConfig, fullCache, loadDecoder } from '@lowbit/model'
import { demoFolder, referenceKernels } from '@lowbit/testing'
import { beforeAll, describe, expect, it, vi } from 'vitest'
import type { Achieved } from './achieved.ts'
import { calibratePasses, calibrateProducts, sampleKinds } from './calibrate.ts'
import { COST_DEVICES, type DeviceFacts } from './devices.ts'
import { forecast, predict } from './roofline.ts'
import { type ModelOnPaper, type StoredMatrix, storedBytes, workOf } from './work.ts'

let model: ModelOnPaper
const counted = { matrix: 0, attention: 0 }

/** Counts the multiply-adds of every product. */
function counting(kernels: Kernels): Kernels {
  return {
    ...kernels,
    matmul(out, x, weight, options) {
      counted.matrix += x.rows * weight.rows * weight.columns
      kernels.matmul(out, x, weight, options)
    },
    attention(out: Tensor, q: Tensor, k: Tensor, v: Tensor, shape: AttentionShape) {
      for (let i = 1; i <= q.rows; i++) {
        counted.attention += 2 * (shape.start + i) * shape.heads * shape.headSize
      }
      kernels.attention(out, q, k, v, shape)
    },
  }
}

const kernels = counting(referenceKernels())

beforeAll(async () => {
  const checkpoint = await openFolder(nodeFolder(demoFolder()))
  const matrices: StoredMatrix[] = []
  const { samples, add } = sampleKinds()
  for (const module of checkpoint.modules) {
    const matrix = await checkpoint.readMatrix(module)
    const { rows, columns } = matrix
    const bits = isQuantized(matrix) ? measureMatrix(matrix).total : rows * columns * 16
    const kind = add(matrix, module.startsWith('model.layers'))
    matrices.push({ module, rows, columns, bytes: bits / 8, coded: isQuantized(matrix), kind })
  }
  model = {
    config: decoderConfig(checkpoint.config),
    ...{ matrices, vectorBytes: 2 * 256 * 13, cache: fullCache(), samples },
  }
})

it('counts the multiply-adds of a pass as the decoder makes them', async () => {
  const checkpoint = await openFolder(nodeFolder(demoFolder()))
  const decoder = await loadDecoder(checkpoint, kernels)
  const cache = decoder.cache(40)
  let past = 0
  for (const count of [7, 1, 4]) {
    Object.assign(counted, { matrix: 0, attention: 0 })
    const hidden = decoder.forward(new Array<number>(count).fill(3), cache)
    kernels.free(decoder.logits(kernels.rows(hidden, count - 1, count)), hidden)
    const work = workOf(model, past, count)
    expect(work.matrixMacs).toBe(counted.matrix)
    expect(work.attentionMacs).toBe(counted.attention)
    past += count
  }
  cache.dispose()
})

it('counts bytes: every weight once, a tied embedding as the output matrix, the cache as it grows', () => {
  const { layers, keyValueHeads, headSize } = model.config
  const line = layers * keyValueHeads * headSize * 2 * 4
  const whole = model.matrices.reduce((sum, { bytes }) => sum + bytes, 0) + model.vectorBytes
  expect(workOf(model, 10, 1)).toMatchObject({ weightBytes: whole, cacheBytes: 11 * line })
  expect(workOf(model, 0, 6).cacheBytes).toBe(6 * line)
  const embedding = model.matrices.find(({ module }) => module === 'model.embed_tokens')!
  const untied: ModelOnPaper = {
    ...model,
    matrices: [...model.matrices, { ...embedding, module: 'lm_head' }],
  }
  const rows = (embedding.bytes / embedding.rows) * 6
  expect(workOf(untied, 0, 6).weightBytes).toBeCloseTo(whole + rows, 6)
  expect(workOf(untied, 0, 6, false).weightBytes).toBeCloseTo(whole + rows - embedding.bytes, 6)
  expect(storedBytes(untied)).toBe(whole + embedding.bytes)
})

describe('the roofline', () => {
  const device: DeviceFacts = {
    ...{ name: 'paper', title: 'paper', source: 'made up' },
    ...{ memoryBytes: 1e9, bytesPerSecond: 1e9, busBytesPerSecond: 1e8 },
    flops: { f32: 1e12, f16: 1e12, int8: 4e12 },
  }
  const coded = (bits: number): ModelOnPaper => ({
    ...model,
    matrices: model.matrices.map((one) => ({
      ...one,
      ...{ bytes: (one.rows * one.columns * bits) / 8, coded: true },
    })),
  })

  it('is bound by memory for one token, and fewer bits are as much faster as they are fewer', () => {
    const [four, sixteen] = [4, 16].map((bits) => predict(coded(bits), device, 'weights', 0, 1))
    expect([four.bound, sixteen.bound]).toEqual(['memory', 'memory'])
    expect(sixteen.seconds / four.seconds).toBeGreaterThan(3.8)
    expect(four.seconds).toBeCloseTo((four.work.weightBytes + four.work.cacheBytes) / 1e9, 12)
  })

  it('is bound by arithmetic for a prompt where arithmetic is dear; expanding weights costs, integers do not', () => {
    const slow = { ...device, flops: { f32: 1e9, f16: 1e9, int8: 4e9 } }
    const [weights, both] = (['weights', 'activations'] as const).map((arithmetic) =>
      predict(coded(4), slow, arithmetic, 0, 512),
    )
    expect(weights.bound).toBe('arithmetic')
    const { matrixMacs, attentionMacs, codedWeights } = weights.work
    expect(weights.arithmeticSeconds).toBeCloseTo(
      (2 * (matrixMacs + attentionMacs + codedWeights)) / 1e9,
      9,
    )
    expect(both.arithmeticSeconds).toBeCloseTo((matrixMacs / 2 + 2 * attentionMacs) / 1e9, 9)
  })

  it('is bound by the bus where memory is too small', () => {
    const small = { ...device, memoryBytes: 1e6 }
    const found = forecast(coded(8), small, 'weights', 100)
    expect(found.fits).toBe(false)
    expect(found.generation.bound).toBe('bus')
    expect(found.generation.busBytes).toBe(found.memoryBytes - 1e6)
  })

  it('adds up a prompt in chunks, the output matrix in the last alone', () => {
    const { prefillSeconds } = forecast(model, device, 'weights', 700)
    const parts = [
      predict(model, device, 'weights', 0, 512, false),
      predict(model, device, 'weights', 512, 188),
    ]
    expect(prefillSeconds).toBeCloseTo(parts[0].seconds + parts[1].seconds, 12)
    expect(parts[0].work.weightBytes).toBeLessThan(parts[1].work.weightBytes)
  })
})

describe('what kernels achieve', () => {
  const products = {
    ...{ seconds: 2e-6, secondsPerByte: 1e-10 },
    ...{ secondsPerByteExpanded: 2e-11, secondsPerMac: 3e-12 },
  }
  const achieved: Achieved = {
    products: new Map([...new Set(['f16', 'bf16', 'f32'])].map((kind) => [kind, products])),
    attention: {
      ...{ seconds: 1e-5, secondsPerPosition: 1e-8 },
      ...{ secondsPerRow: 2e-7, secondsPerPair: 1e-9 },
    },
    others: { seconds: 4e-5, secondsPerRow: 5e-7 },
    secondsPerPass: 1e-4,
  }
  const [device] = COST_DEVICES
  const head = () => model.matrices.find(({ module }) => module === 'model.embed_tokens')!

  it('makes a pass the sum of its parts', () => {
    const one = predict(model, device, 'weights', 100, 1, true, achieved)
    const bytes = model.matrices.reduce((sum, matrix) => sum + matrix.bytes, 0)
    expect(one.parts?.weights).toBeCloseTo(model.matrices.length * 2e-6 + bytes * 1e-10, 12)
    expect(one.parts?.attention).toBeCloseTo(1e-5 + 100 * 1e-8, 12)
    expect(one.parts?.others).toBeCloseTo(1.4e-4, 12)
    expect(one.seconds).toBeCloseTo(
      Object.values(one.parts ?? {}).reduce((a, b) => a + b),
      12,
    )
    expect(one.leastSeconds).toBeLessThan(one.seconds)
    const macs = model.matrices.reduce((sum, { rows, columns }) => sum + rows * columns, 0)
    const many = predict(model, device, 'weights', 30, 200, false, achieved)
    expect(many.parts?.weights).toBeCloseTo(
      (model.matrices.length - 1) * 2e-6 +
        (bytes - head().bytes) * 2e-11 +
        200 * (macs - head().rows * head().columns) * 3e-12,
      12,
    )
    expect(many.parts?.attention).toBeCloseTo(200 * 2e-7 + (200 * 30 + 20_100) * 1e-9, 12)
    expect(forecast(model, device, 'weights', 100, achieved).tokensPerSecond).toBe(1 / one.seconds)
  })

  it('names what most of the time goes into, the bus too', () => {
    const dear = { ...achieved, others: { seconds: 1, secondsPerRow: 1 } }
    expect(predict(model, device, 'weights', 9, 1, true, dear).bound).toBe('others')
    const small = { ...device, memoryBytes: 1e6, busBytesPerSecond: 1e3 }
    const found = predict(model, small, 'weights', 9, 1, true, achieved)
    expect([found.bound, found.seconds]).toEqual(['bus', found.busSeconds])
  })

  it('is found by timing: on kernels whose clock is known it is what they take', async () => {
    let clock = 0
    const now = vi.spyOn(performance, 'now').mockImplementation(() => clock * 1000)
    const bare = referenceKernels()
    const timed: Kernels = {
      ...bare,
      matmul(_out, x, { rows, columns }) {
        const work = rows * columns
        clock += 0.02 + work * (x.rows === 1 ? 2 * 1e-6 : 2 * 1e-7 + x.rows * 3e-8)
      },
      attention(_out, q, _k, _v, { start }) {
        clock += (q.rows * start + (q.rows * (q.rows + 1)) / 2) * 1e-5 + q.rows * 1e-4
      },
      rmsNorm(_out, x) {
        clock += x.rows * 0.01
      },
      ...{ rope: () => {}, activate: () => {}, add: () => {} },
      async read(tensor) {
        clock += 1e-7
        return new Float32Array(tensor.rows * tensor.columns)
      },
    }
    try {
      const before = bare.bytes
      const rates = await calibrateProducts(timed, model, 'f32')
      const passes = await calibratePasses(timed, model)
      expect(bare.bytes).toBe(before)
      const [[kind, found]] = rates
      expect(model.matrices.some((matrix) => matrix.kind === kind)).toBe(true)
      expect(found.seconds).toBeCloseTo(0.02, 5)
      expect(found.secondsPerByte).toBeCloseTo(1e-6, 9)
      expect(found.secondsPerByteExpanded).toBeCloseTo(1e-7, 10)
      expect(found.secondsPerMac).toBeCloseTo(3e-8, 11)
      const { layers } = model.config
      expect(passes.attention.secondsPerPosition).toBeCloseTo(layers * 1e-5, 8)
      expect(passes.attention.secondsPerPair).toBeCloseTo(layers * 1e-5, 8)
      expect(passes.attention.secondsPerRow).toBeCloseTo(layers * 1e-4, 6)
      expect(passes.others.secondsPerRow).toBeCloseTo(layers * 0.02, 5)
      expect(passes.secondsPerPass).toBeCloseTo(1e-7, 9)
    } finally {
      now.mockRestore()
    }
  })
})

it('knows devices by names of their own, with sources', () => {
  expect(new Set(COST_DEVICES.map(({ name }) => name)).size).toBe(COST_DEVICES.length)
  for (const { flops, source } of COST_DEVICES) {
    expect(flops.int8).toBeGreaterThanOrEqual(flops.f16)
    expect(source.length).toBeGreaterThan(20)
  }
})
