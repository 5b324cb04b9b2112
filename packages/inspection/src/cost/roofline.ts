/**
 * The roofline (Williams, Waterman, Patterson, CACM 2009): a pass takes the longer of moving its bytes and doing its
 * arithmetic. Both are limits that nothing exceeds. Where it is known what kernels achieve, a pass takes the sum of its
 * parts instead.
 */

import { type Achieved, type PassParts, partsOfPass } from './achieved.ts'
import type { DeviceFacts } from './devices.ts'
import { type ModelOnPaper, storedBytes, type Work, workOf } from './work.ts'

/**
 * `weights`: only weights are in few bits, and are expanded to what activations are in. `activations`: activations are
 * rounded too, matrices are multiplied as integers, and weights need no expanding.
 */
export type Arithmetic = 'weights' | 'activations'

export interface Prediction {
  readonly work: Work
  /** Between memory and arithmetic. */
  readonly memorySeconds: number
  readonly arithmeticSeconds: number
  /** Over the bus, of what the device's memory does not hold. */
  readonly busBytes: number
  readonly busSeconds: number
  /** By the roofline … */
  readonly leastSeconds: number
  /** … and as far as kernels come, where that is known; otherwise the same. */
  readonly seconds: number
  readonly parts?: PassParts
  /** What most of the time goes into. */
  readonly bound: 'memory' | 'arithmetic' | 'bus' | keyof PassParts
}

export interface Forecast {
  readonly context: number
  /** Weights and cache. */
  readonly memoryBytes: number
  readonly cacheBytes: number
  readonly fits: boolean
  /** From the host, once. */
  readonly loadSeconds: number
  readonly generation: Prediction
  readonly prefillSeconds: number
  readonly tokensPerSecond: number
  readonly prefillTokensPerSecond: number
}

/** A multiply-add. */
const MAC = 2
/** Scale and least value of a number in codes: a multiply-add too. */
const EXPAND = 2
/** Tokens of a prompt that run at once. */
export const CHUNK = 512

export function predict(
  model: ModelOnPaper,
  device: DeviceFacts,
  arithmetic: Arithmetic,
  past: number,
  count: number,
  makesLogits = true,
  achieved?: Achieved,
): Prediction {
  const work = workOf(model, past, count, makesLogits)
  const { weightBytes, cacheBytes, matrixMacs, attentionMacs, codedWeights, codedNumbers } = work
  const { f16, int8 } = device.flops
  const integers = arithmetic === 'activations'
  const arithmeticSeconds =
    (MAC * matrixMacs) / (integers ? int8 : f16) +
    (MAC * attentionMacs + EXPAND * (codedNumbers + (integers ? 0 : codedWeights))) / f16
  const memorySeconds = (weightBytes + cacheBytes) / device.bytesPerSecond
  const busBytes = Math.max(0, residentBytes(model, past + count) - device.memoryBytes)
  const busSeconds = busBytes / device.busBytesPerSecond
  const limits = { memory: memorySeconds, arithmetic: arithmeticSeconds, bus: busSeconds }
  const leastSeconds = Math.max(...Object.values(limits))
  const parts = achieved && partsOfPass(model, achieved, past, count, makesLogits)
  const sum = parts ? parts.weights + parts.attention + parts.others : 0
  return {
    ...{ work, memorySeconds, arithmeticSeconds, busBytes, busSeconds, leastSeconds, parts },
    seconds: Math.max(parts ? sum : leastSeconds, busSeconds),
    bound: parts && sum > busSeconds ? largest(parts) : largest(limits),
  }
}

function largest<T extends { readonly [K in keyof T]: number }>(parts: T): keyof T {
  const names = Object.keys(parts) as (keyof T)[]
  return names.reduce((a, b) => (parts[b] > parts[a] ? b : a))
}

/** Generation of the next token behind `context` others, and reading them before. */
export function forecast(
  model: ModelOnPaper,
  device: DeviceFacts,
  arithmetic: Arithmetic,
  context: number,
  achieved?: Achieved,
): Forecast {
  const generation = predict(model, device, arithmetic, context, 1, true, achieved)
  let prefillSeconds = 0
  for (let past = 0; past < context; past += CHUNK) {
    const count = Math.min(CHUNK, context - past)
    const last = past + count === context
    const chunk = predict(model, device, arithmetic, past, count, last, achieved)
    prefillSeconds += chunk.seconds
  }
  const memoryBytes = residentBytes(model, context + 1)
  return {
    context,
    memoryBytes,
    cacheBytes: memoryBytes - storedBytes(model),
    fits: memoryBytes <= device.memoryBytes,
    loadSeconds: storedBytes(model) / device.busBytesPerSecond,
    generation,
    prefillSeconds,
    tokensPerSecond: 1 / generation.seconds,
    prefillTokensPerSecond: context / prefillSeconds,
  }
}

const residentBytes = (model: ModelOnPaper, tokens: number): number =>
  storedBytes(model) + model.cache.size(model.config, tokens).bytes
