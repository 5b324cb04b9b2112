/** The scale and zero point of one block, by a search over shrunken ranges. */

import {
  bfloatToFloat,
  type FitOptions,
  floatToBfloat,
  floatToHalf,
  halfToFloat,
  LowbitError,
} from '@lowbit/core'
import { type GridRounder, roundHalfEven } from './rounding.ts'

export interface FittedBlock {
  readonly scale: number
  readonly zero: number
}

/**
 * Tries p = 1, 1 − step, 1 − 2·step, … of the range and keeps the first with the smallest
 * Σ importance · (w − scale · (grid(code) − zero))², measured with the scale as it will be stored.
 */
export function fitBlock(
  weights: readonly number[],
  importance: readonly number[],
  options: FitOptions,
  rounder: GridRounder,
): FittedBlock {
  const { candidates, step } = options.search
  let best: FittedBlock = candidate(weights, 0, options, rounder)
  let least = blockError(weights, importance, best, rounder)
  for (let i = 1; i < candidates && step * i < 1; i++) {
    const next = candidate(weights, i, options, rounder)
    const error = blockError(weights, importance, next, rounder)
    if (error < least) [best, least] = [next, error]
  }
  return best
}

/** Σ importance · (w − q)² of one block. */
export function blockError(
  weights: readonly number[],
  importance: readonly number[],
  { scale, zero }: FittedBlock,
  { nearest, values }: GridRounder,
): number {
  return weights.reduce((sum, w, i) => {
    const q = scale * (values[nearest(w / scale, zero)] - zero)
    return sum + importance[i] * (w - q) ** 2
  }, 0)
}

function candidate(
  weights: readonly number[],
  i: number,
  { grid, asymmetric, search, scaleType }: FitOptions,
  { largest }: GridRounder,
): FittedBlock {
  const p = 1 - search.step * i
  if (asymmetric) {
    if (grid.kind !== 'integer' || grid.lowest !== 0 || grid.step !== 1) {
      throw new LowbitError('bad-grid', 'a zero point needs an integer grid that starts at 0')
    }
    const low = weights.reduce((least, w) => Math.min(least, w), 0)
    const high = weights.reduce((most, w) => Math.max(most, w), 0)
    const top = grid.levels - 1
    const range = (high - low) * p
    const scale = roundScale(scaleType, range / top, range, top)
    // Of the exact scale, as the reference implementation of GPTQ has it: the same for every p.
    const zero = range > 0 ? roundHalfEven((-low * p * top) / range) : 0
    return { scale, zero: Math.min(top, Math.max(0, zero)) + 0 }
  }
  const most = weights.reduce((sofar, w) => Math.max(sofar, Math.abs(w)), 0)
  if (grid.kind === 'integer' && grid.levels === 2 && grid.lowest < 0 && i === 0) {
    // {−1, 1}: the mean of |w| has the least squared error of all scales (XNOR-Net, section 3.1).
    const mean = weights.reduce((sum, w) => sum + Math.abs(w), 0) / weights.length
    return { scale: roundScale(scaleType, mean / largest, most, largest), zero: 0 }
  }
  const reach =
    grid.kind === 'integer' && grid.levels > 2 ? (grid.step * (grid.levels - 1)) / 2 : largest
  return { scale: roundScale(scaleType, (most * p) / reach, most * p, largest), zero: 0 }
}

/** To the nearest value of the type that is neither 0 nor infinite. */
function roundScale(
  type: FitOptions['scaleType'],
  scale: number,
  range: number,
  largest: number,
): number {
  if (type === 'f8_e8m0') {
    // OCP Microscaling 1.0, section 6.3: exponent of the largest weight less that of the largest element.
    const shared = range > 0 ? exponentOf(range) - exponentOf(largest) : -127
    return 2 ** Math.min(127, Math.max(-127, shared))
  }
  if (type === 'f16') return Math.min(65504, Math.max(2 ** -24, halfToFloat(floatToHalf(scale))))
  if (type === 'bf16') {
    const highest = (2 - 2 ** -7) * 2 ** 127
    return Math.min(highest, Math.max(2 ** -133, bfloatToFloat(floatToBfloat(scale))))
  }
  return Math.min((2 - 2 ** -23) * 2 ** 127, Math.max(2 ** -149, Math.fround(scale)))
}

/** ⌊log₂ x⌋, exact. */
function exponentOf(x: number): number {
  const near = Math.floor(Math.log2(x))
  if (2 ** near > x) return near - 1
  return 2 ** (near + 1) <= x ? near + 1 : near
}
