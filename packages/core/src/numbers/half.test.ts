import { expect, it } from 'vitest'
import { decodeFloat, encodeFloat, FLOAT_FORMATS } from './float.ts'
import { bfloatToFloat, floatToBfloat, floatToHalf, halfToFloat } from './half.ts'

it('every f16 pattern means what the general float says and comes back', () => {
  for (let code = 0; code < 65536; code++) {
    const value = halfToFloat(code)
    expect(value === decodeFloat(FLOAT_FORMATS.f16, code) || Number.isNaN(value)).toBe(true)
    if (!Number.isNaN(value) && floatToHalf(value) !== code) expect(floatToHalf(value)).toBe(code)
    const wide = bfloatToFloat(code)
    if (!Number.isNaN(wide) && floatToBfloat(wide) !== code) expect(floatToBfloat(wide)).toBe(code)
  }
})

it('rounds as the general float does', () => {
  let state = 1
  for (let i = 0; i < 20000; i++) {
    state = Math.imul(state, 1664525) + 1013904223
    const x = Math.fround((state / 2 ** 31) * 2 ** ((i % 50) - 30))
    const half = encodeFloat(FLOAT_FORMATS.f16, x, 'infinity')
    if (floatToHalf(x) !== half) expect(floatToHalf(x), `${x}`).toBe(half)
    const wide = encodeFloat(FLOAT_FORMATS.bf16, x, 'infinity')
    if (floatToBfloat(x) !== wide) expect(floatToBfloat(x), `${x}`).toBe(wide)
  }
})
