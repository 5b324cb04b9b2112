import { expect, it } from 'vitest'
import { parseBytes, parseNumber, wholeNumber } from './values.ts'

it('reads sizes', () => {
  expect(parseBytes('5GB')).toBe(5e9)
  expect(parseBytes('512MiB')).toBe(512 * 2 ** 20)
  expect(parseBytes('1.5 k')).toBe(1500)
  expect(parseBytes('1000000')).toBe(1_000_000)
  for (const bad of ['', '0', '-5', 'GB', '5 parsecs']) expect(() => parseBytes(bad)).toThrow()
})

it('reads numbers within limits', () => {
  expect(parseNumber()('1e-3')).toBe(0.001)
  expect(wholeNumber(1)('12')).toBe(12)
  expect(() => wholeNumber(1)('0')).toThrow(/at least 1/)
  expect(() => wholeNumber(1)('1.5')).toThrow(/whole/)
  expect(() => wholeNumber(0, 8)('9')).toThrow(/at most 8/)
  for (const bad of ['', ' ', 'x', 'NaN', 'Infinity']) expect(() => parseNumber()(bad)).toThrow()
})
