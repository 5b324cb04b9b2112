/**
 * NormalFloat (QLoRA, 2305.14314, section 3 and appendix E): the levels of a k-bit code at the quantiles
 * of the standard normal, asymmetric so that 0 is exact, scaled to [−1, 1].
 */

/** The offset that the published NF4 table was made with: ½(1/32 + 1/30). */
const offset = (bits: number): number => 1 - (1 / 2 ** (bits + 1) + 1 / (2 ** (bits + 1) - 2)) / 2

/**
 * The 2^bits ascending levels of NF-`bits`, as f32. For bits = 4 they equal the published table (bitsandbytes).
 * One level more on the positive side than on the negative, zero between them.
 */
export function normalFloat(bits: number): Float32Array {
  const half = 2 ** (bits - 1)
  const edge = offset(bits)
  const levels = [0]
  for (let i = 0; i < half; i++) levels.push(normalQuantile(edge + (i / half) * (0.5 - edge)))
  for (let i = 0; i < half - 1; i++) {
    levels.push(-normalQuantile(edge + (i / (half - 1)) * (0.5 - edge)))
  }
  const largest = Math.max(...levels)
  return Float32Array.from(levels.map((level) => level / largest).sort((a, b) => a - b))
}

/** Inverse of the standard normal's distribution function: Acklam's rational start, then Newton–Halley on erfc. */
export function normalQuantile(p: number): number {
  if (p <= 0) return Number.NEGATIVE_INFINITY
  if (p >= 1) return Number.POSITIVE_INFINITY
  if (p === 0.5) return 0
  if (p > 0.5) return -normalQuantile(1 - p)
  const t = Math.sqrt(-2 * Math.log(p))
  // Abramowitz and Stegun 26.2.23, good to 4.5e-4; three Halley steps make it exact to double precision.
  let x = -(
    t -
    (2.515517 + t * (0.802853 + t * 0.010328)) /
      (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
  )
  for (let i = 0; i < 3; i++) {
    const error = normalDistribution(x) - p
    const step = error * Math.sqrt(2 * Math.PI) * Math.exp((x * x) / 2)
    x -= step / (1 + (x * step) / 2)
  }
  return x
}

/** Φ(x) for x ≤ 0: series near 0, continued fraction in the tail; relative error below 1e-14. */
export function normalDistribution(x: number): number {
  if (x > 0) return 1 - normalDistribution(-x)
  const density = Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI)
  if (x > -3) {
    let term = x
    let sum = x
    for (let n = 1; Math.abs(term) > 1e-17; n++) {
      term *= (x * x) / (2 * n + 1)
      sum += term
    }
    return 0.5 + density * sum
  }
  let fraction = -x
  for (let n = 60; n > 0; n--) fraction = -x + n / fraction
  return density / fraction
}
