/** Adam (Kingma & Ba, 1412.6980), mostly on numbers that multiply what they tune: they begin at 1. */

export interface Factors {
  readonly values: Float32Array
  /** First and second moments of the gradient. */
  readonly mean: Float64Array
  readonly square: Float64Array
}

export function factors(count: number): Factors {
  return {
    values: new Float32Array(count).fill(1),
    mean: new Float64Array(count),
    square: new Float64Array(count),
  }
}

const [BETA1, BETA2, EPSILON] = [0.9, 0.95, 1e-12]

/** `step` counts from 1; moves values by about `rate` at most. */
export function moveBy(
  { values, mean, square }: Factors,
  gradient: ArrayLike<number>,
  step: number,
  rate: number,
): void {
  for (let i = 0; i < values.length; i++) {
    const g = gradient[i]
    mean[i] = BETA1 * mean[i] + (1 - BETA1) * g
    square[i] = BETA2 * square[i] + (1 - BETA2) * g * g
    const size = Math.sqrt(square[i] / (1 - BETA2 ** step)) + EPSILON
    values[i] -= (rate * (mean[i] / (1 - BETA1 ** step))) / size
  }
}

/** The same for factors, which stay within 1/4 … 4: a scale never changes its sign. */
export function adam(
  factors: Factors,
  gradient: ArrayLike<number>,
  step: number,
  rate: number,
): void {
  moveBy(factors, gradient, step, rate)
  const { values } = factors
  for (let i = 0; i < values.length; i++) values[i] = Math.min(4, Math.max(0.25, values[i]))
}

/** Rises over the first tenth, then falls to nothing along a cosine. */
export function rateAt(step: number, steps: number, rate: number): number {
  const rise = Math.max(1, Math.round(steps / 10))
  if (step <= rise) return (rate * step) / rise
  return (rate / 2) * (1 + Math.cos((Math.PI * (step - rise)) / (steps - rise + 1)))
}
