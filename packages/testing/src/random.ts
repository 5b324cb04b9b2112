/** Random matrices and Hessians that look like those of language models. */

export type Random = () => number

/** A source of standard normal numbers over a uniform one (Box–Muller). */
export function normalRandom(random: Random): Random {
  return () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
}

/** Normal numbers of a standard deviation. */
export function randomValues(count: number, random: Random, deviation = 1): Float32Array {
  const normal = normalRandom(random)
  return Float32Array.from({ length: count }, () => normal() * deviation)
}

/** Integers in [0, below). */
export function randomIntegers(count: number, below: number, random: Random): Uint32Array {
  return Uint32Array.from({ length: count }, () => Math.floor(random() * below))
}

/** A random permutation of 0 … count − 1 (Fisher–Yates). */
export function randomOrder(count: number, random: Random): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i)
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    ;[order[i], order[j]] = [order[j], order[i]]
  }
  return order
}

/** A weight of rows × columns: normal, deviation 0.05, with rows of different size. */
export function randomWeight(rows: number, columns: number, random: Random): Float32Array {
  const values = randomValues(rows * columns, random, 0.05)
  for (let row = 0; row < rows; row++) {
    const size = 0.5 + random()
    for (let k = 0; k < columns; k++) values[row * columns + k] *= size
  }
  return values
}

export interface ActivationOptions {
  /** Share of the channels that are `outlierSize` times larger. Default 5 %, 10 times. */
  readonly outliers?: number
  readonly outlierSize?: number
  /** Share of every channel that comes from a few common directions. Default 0.5. */
  readonly correlation?: number
}

/** Inputs of a layer, tokens × columns: correlated, with a few channels much larger than the rest. */
export function randomActivations(
  tokens: number,
  columns: number,
  random: Random,
  options: ActivationOptions = {},
): Float32Array {
  const { outliers = 0.05, outlierSize = 10, correlation = 0.5 } = options
  const normal = normalRandom(random)
  const directions = 4
  const mix = randomValues(directions * columns, random)
  const sizes = Array.from({ length: columns }, () => (random() < outliers ? outlierSize : 1))
  const x = new Float32Array(tokens * columns)
  for (let t = 0; t < tokens; t++) {
    const common = Array.from({ length: directions }, normal)
    for (let k = 0; k < columns; k++) {
      const shared = common.reduce((sum, c, d) => sum + c * mix[d * columns + k], 0)
      const own = normal() * (1 - correlation)
      x[t * columns + k] = sizes[k] * (own + (correlation * shared) / Math.sqrt(directions))
    }
  }
  return x
}

/** Σ x xᵀ / tokens, [columns, columns]. */
export function hessianOf(x: Float32Array, columns: number): Float32Array {
  const tokens = x.length / columns
  const hessian = new Float32Array(columns * columns)
  for (let i = 0; i < columns; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = 0
      for (let t = 0; t < tokens; t++) sum += x[t * columns + i] * x[t * columns + j]
      hessian[i * columns + j] = hessian[j * columns + i] = sum / tokens
    }
  }
  return hessian
}

/** The Hessian of random activations, four tokens a column by default. */
export function randomHessian(
  columns: number,
  random: Random,
  options: ActivationOptions & { readonly tokens?: number } = {},
): Float32Array {
  const tokens = options.tokens ?? 4 * columns
  return hessianOf(randomActivations(tokens, columns, random, options), columns)
}
