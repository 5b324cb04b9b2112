import { describe, expect, it } from 'vitest'
import {
  decodeFloat,
  encodeFloat,
  FLOAT_FORMATS,
  floatBits,
  floatFormat,
  largestFloat,
} from './float.ts'

const formats = [...Object.values(FLOAT_FORMATS), floatFormat(3, 0), floatFormat(2, 3)].filter(
  (f) => floatBits(f) <= 8,
)

describe.each(formats)('$name', (f) => {
  const codes = Array.from({ length: 2 ** floatBits(f) }, (_, code) => code)
  const finite = codes.filter((code) => Number.isFinite(decodeFloat(f, code)))

  it('gives every finite code back', () => {
    for (const code of finite) expect(encodeFloat(f, decodeFloat(f, code))).toBe(code)
  })

  it('rounds to the nearest, ties to even, by brute force', () => {
    const signBit = f.signed ? 2 ** (f.exponent + f.mantissa) : 256
    const positive = finite.filter((code) => decodeFloat(f, code) >= 0 && code < signBit)
    const sorted = positive.map((code) => decodeFloat(f, code))
    for (let i = 1; i < sorted.length; i++) {
      const [low, high] = [sorted[i - 1], sorted[i]]
      const middle = (low + high) / 2
      const even = positive[i - 1] % 2 === 0 ? low : high
      // Without a mantissa the tie 1.5·2^n goes up: 2·2^n is the even multiple.
      expect(decodeFloat(f, encodeFloat(f, middle))).toBe(f.mantissa === 0 && low > 0 ? high : even)
      expect(decodeFloat(f, encodeFloat(f, middle - (high - low) * 0.01))).toBe(low)
      expect(decodeFloat(f, encodeFloat(f, middle + (high - low) * 0.01))).toBe(high)
    }
  })

  it('saturates', () => {
    expect(decodeFloat(f, encodeFloat(f, 1e39))).toBe(largestFloat(f))
    expect(decodeFloat(f, encodeFloat(f, Number.POSITIVE_INFINITY))).toBe(largestFloat(f))
    if (f.signed) expect(decodeFloat(f, encodeFloat(f, -1e39))).toBe(-largestFloat(f))
  })

  it('keeps NaN where it has one', () => {
    const back = decodeFloat(f, encodeFloat(f, Number.NaN))
    expect(back).toBe(f.special === 'none' ? 0 : Number.NaN)
  })
})

describe('the values that the specifications name', () => {
  it.each([
    ['f8_e4m3', 448],
    ['f8_e5m2', 57344],
    ['f6_e3m2', 28],
    ['f6_e2m3', 7.5],
    ['f4_e2m1', 6],
    ['f16', 65504],
    ['f8_e8m0', 2 ** 127],
  ] as const)('%s reaches %d', (name, largest) => {
    expect(largestFloat(FLOAT_FORMATS[name])).toBe(largest)
  })

  it('E2M1 is 0 ½ 1 1½ 2 3 4 6', () => {
    const values = Array.from({ length: 8 }, (_, code) => decodeFloat(FLOAT_FORMATS.f4_e2m1, code))
    expect(values).toEqual([0, 0.5, 1, 1.5, 2, 3, 4, 6])
  })

  it('E5M2 has infinities, E4M3 has none', () => {
    expect(decodeFloat(FLOAT_FORMATS.f8_e5m2, 0x7c)).toBe(Number.POSITIVE_INFINITY)
    expect(decodeFloat(FLOAT_FORMATS.f8_e4m3, 0x78)).toBe(256)
    expect(decodeFloat(FLOAT_FORMATS.f8_e4m3, 0x7f)).toBeNaN()
    expect(encodeFloat(FLOAT_FORMATS.f8_e5m2, 1e9, 'infinity')).toBe(0x7c)
  })
})
