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
import { beforeAll, describe, expect, it } from 'vitest'
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
  for (const module of checkpoint.modules) {
    const matrix = await checkpoint.readMatrix(module)
    const { rows, columns } = matrix
    const bits = isQuantized(matrix) ? measureMatrix(matrix).total : rows * columns * 16
    matrices.push({ module, rows, columns, bytes: bits / 8, coded: isQuantized(matrix) })
  }
  model = {
    config: decoderConfig(checkpoint.config),
    ...{ matrices, vectorBytes: 2 * 256 * 13, cache: fullCache() },
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

it('knows devices by names of their own, with sources', () => {
  expect(new Set(COST_DEVICES.map(({ name }) => name)).size).toBe(COST_DEVICES.length)
  for (const { flops, source } of COST_DEVICES) {
    expect(flops.int8).toBeGreaterThanOrEqual(flops.f16)
    expect(source.length).toBeGreaterThan(20)
  }
})
