/** Many numbers → a few bars. */

export interface Bar {
  readonly from: number
  readonly to: number
  /** Of all numbers, those outside the range included. */
  readonly share: number
}

export interface Histogram {
  readonly bars: readonly Bar[]
  /** Numbers beyond either end of the range. */
  readonly outside: number
}

/** Bars of equal width over [least, most]; numbers that are not finite count nowhere. */
export function histogram(
  values: Float32Array,
  [least, most]: readonly [number, number],
  bars: number,
  weights?: Float64Array,
): Histogram {
  const sums = new Float64Array(bars)
  const width = (most - least) / bars
  let all = 0
  let outside = 0
  for (let i = 0; i < values.length; i++) {
    const value = values[i]
    if (!Number.isFinite(value)) continue
    const weight = weights ? weights[i] : 1
    all += weight
    if (value < least || value > most) outside += weight
    else sums[Math.min(bars - 1, Math.floor((value - least) / width))] += weight
  }
  return {
    outside,
    bars: Array.from(sums, (sum, i) => ({
      from: least + i * width,
      to: least + (i + 1) * width,
      share: all > 0 ? sum / all : 0,
    })),
  }
}

/** Where finite values lie; a single value gets some room around it. */
export function finiteRange(values: Iterable<number>): [least: number, most: number] {
  let [least, most] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]
  for (const value of values) {
    if (!Number.isFinite(value)) continue
    if (value < least) least = value
    if (value > most) most = value
  }
  if (least > most) return [-1, 1]
  if (least === most) return [least - (Math.abs(least) || 1), most + (Math.abs(most) || 1)]
  return [least, most]
}
