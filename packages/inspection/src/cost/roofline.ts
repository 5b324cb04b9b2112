/**
 * The roofline (Williams, Waterman, Patterson, CACM 2009): a pass takes the longer of moving its bytes and doing its
 * arithmetic. Both are limits that nothing exceeds; how far kernels stay behind is measured, not modelled.
 */

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
  readonly seconds: number
  /** What the time goes into. */
  readonly bound: 'memory' | 'arithmetic' | 'bus'
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
const CHUNK = 512

export function predict(
  model: ModelOnPaper,
  device: DeviceFacts,
  arithmetic: Arithmetic,
  past: number,
  count: number,
  makesLogits = true,
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
  const seconds = Math.max(memorySeconds, arithmeticSeconds, busSeconds)
  const bound =
    seconds === busSeconds && busBytes > 0
      ? 'bus'
      : seconds === memorySeconds
        ? 'memory'
        : 'arithmetic'
  return { work, memorySeconds, arithmeticSeconds, busBytes, busSeconds, seconds, bound }
}

/** Generation of the next token behind `context` others, and reading them before. */
export function forecast(
  model: ModelOnPaper,
  device: DeviceFacts,
  arithmetic: Arithmetic,
  context: number,
): Forecast {
  const generation = predict(model, device, arithmetic, context, 1)
  let prefillSeconds = 0
  for (let past = 0; past < context; past += CHUNK) {
    const count = Math.min(CHUNK, context - past)
    prefillSeconds += predict(
      ...([model, device, arithmetic, past, count, past + count === context] as const),
    ).seconds
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
