/**
 * Small floats of any exponent and mantissa width, as IEEE 754 and the OCP 8-bit and microscaling (MX)
 * specifications define them: bit layout sign | exponent | mantissa, subnormals where the exponent is 0.
 */

export interface FloatFormat {
  readonly name: string
  readonly signed: boolean
  readonly exponent: number
  readonly mantissa: number
  readonly bias: number
  /**
   * What the top of the range is used for: `ieee` the whole top exponent holds infinities and NaN;
   * `nan` only the all-ones pattern is NaN (E4M3 "fn", E8M0); `none` every pattern is a number (FP6, FP4).
   */
  readonly special: 'ieee' | 'nan' | 'none'
}

const format = (
  name: string,
  exponent: number,
  mantissa: number,
  special: FloatFormat['special'],
): FloatFormat => ({
  name,
  signed: true,
  exponent,
  mantissa,
  bias: 2 ** (exponent - 1) - 1,
  special,
})

export const FLOAT_FORMATS = {
  f16: format('f16', 5, 10, 'ieee'),
  bf16: format('bf16', 8, 7, 'ieee'),
  f8_e4m3: format('f8_e4m3', 4, 3, 'nan'),
  f8_e5m2: format('f8_e5m2', 5, 2, 'ieee'),
  f6_e3m2: format('f6_e3m2', 3, 2, 'none'),
  f6_e2m3: format('f6_e2m3', 2, 3, 'none'),
  f4_e2m1: format('f4_e2m1', 2, 1, 'none'),
  /** A power of two: 2^(code − 127), 255 is NaN; no sign, no subnormals. */
  f8_e8m0: { name: 'f8_e8m0', signed: false, exponent: 8, mantissa: 0, bias: 127, special: 'nan' },
} as const satisfies Record<string, FloatFormat>

/** Any EeMm in the manner of MX (every pattern a number): `floatFormat(3, 0)` is E3M0. */
export function floatFormat(exponent: number, mantissa: number): FloatFormat {
  const known = Object.values(FLOAT_FORMATS).find(
    (f) => f.signed && f.exponent === exponent && f.mantissa === mantissa,
  )
  return (
    known ??
    format(`f${1 + exponent + mantissa}_e${exponent}m${mantissa}`, exponent, mantissa, 'none')
  )
}

/** Bits of one code, the sign included. */
export function floatBits(f: FloatFormat): number {
  return (f.signed ? 1 : 0) + f.exponent + f.mantissa
}

/** The number that a bit pattern stands for. */
export function decodeFloat(f: FloatFormat, code: number): number {
  const magnitudeBits = f.exponent + f.mantissa
  const sign = f.signed && (code >>> magnitudeBits) & 1 ? -1 : 1
  const exponent = (code >>> f.mantissa) & (2 ** f.exponent - 1)
  const mantissa = code & (2 ** f.mantissa - 1)
  const top = 2 ** f.exponent - 1
  if (f.special === 'ieee' && exponent === top) {
    return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  }
  if (f.special === 'nan' && exponent === top && mantissa === 2 ** f.mantissa - 1) return Number.NaN
  const hasSubnormals = f.mantissa > 0 || f.signed
  if (exponent === 0 && hasSubnormals) {
    return sign * (mantissa / 2 ** f.mantissa) * 2 ** (1 - f.bias)
  }
  return sign * (1 + mantissa / 2 ** f.mantissa) * 2 ** (exponent - f.bias)
}

/** The largest finite number of a format. */
export function largestFloat(f: FloatFormat): number {
  const top = 2 ** (f.exponent + f.mantissa) - 1
  if (f.special === 'none') return decodeFloat(f, top)
  if (f.special === 'nan') return decodeFloat(f, top - 1)
  return decodeFloat(f, top - 2 ** f.mantissa)
}

/**
 * The bit pattern nearest to x, ties to the even mantissa. Past the range it saturates to the largest
 * finite number (as quantizing wants), or with `overflow: 'infinity'` rounds as IEEE does. NaN becomes
 * the format's NaN; in a format without one it is an error of the caller and gives 0.
 */
export function encodeFloat(
  f: FloatFormat,
  x: number,
  overflow: 'saturate' | 'infinity' = 'saturate',
): number {
  const magnitudeBits = f.exponent + f.mantissa
  const sign = f.signed && (x < 0 || Object.is(x, -0)) ? 2 ** magnitudeBits : 0
  const top = 2 ** magnitudeBits - 1
  if (Number.isNaN(x)) {
    return f.special === 'none' ? 0 : top
  }
  const magnitude = f.signed ? Math.abs(x) : Math.max(0, x)
  const largest = largestFloat(f)
  const largestCode =
    f.special === 'none' ? top : f.special === 'nan' ? top - 1 : top - 2 ** f.mantissa
  const hasSubnormals = f.mantissa > 0 || f.signed
  const lowestExponent = hasSubnormals ? 1 - f.bias : -f.bias
  if (magnitude === 0) return sign
  const exponent = Math.max(lowestExponent, Math.floor(log2Exact(magnitude)))
  // In units of the last place at that exponent; rounding may carry into the next exponent, which the
  // code arithmetic below gets right by itself.
  const units = roundHalfEven((magnitude / 2 ** exponent) * 2 ** f.mantissa)
  if (f.mantissa === 0 && !f.signed) {
    // E8M0: no mantissa; `units` is 1 or 2 (or 0 below the range).
    const code = exponent + f.bias + (units > 1 ? 1 : 0)
    return Math.min(Math.max(code, 0), largestCode)
  }
  const code = (exponent - lowestExponent) * 2 ** f.mantissa + units
  if (code > largestCode || magnitude === Number.POSITIVE_INFINITY) {
    const infinite = f.special === 'ieee' && overflow === 'infinity' && magnitude > largest
    return sign + (infinite ? largestCode + 1 : largestCode)
  }
  return sign + code
}

/** Exponent of a positive finite double, exact also for powers of two. */
function log2Exact(x: number): number {
  if (x === Number.POSITIVE_INFINITY) return 1023
  let exponent = Math.floor(Math.log2(x))
  if (2 ** exponent > x) exponent--
  else if (2 ** (exponent + 1) <= x) exponent++
  return exponent
}

function roundHalfEven(x: number): number {
  const floor = Math.floor(x)
  const rest = x - floor
  if (rest > 0.5 || (rest === 0.5 && floor % 2 === 1)) return floor + 1
  return floor
}
