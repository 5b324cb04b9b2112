import { describe, expect, it } from 'vitest'
import { alignmentRank, bitsPerElement, DTYPES, isDtype, tensorByteLength } from './dtype.ts'

describe('dtypes', () => {
  it('are all there, smallest alignment first', () => {
    expect(DTYPES).toHaveLength(22)
    const wide = DTYPES.filter((dtype) => bitsPerElement(dtype) >= 8)
    const bits = wide.map(bitsPerElement)
    expect(bits).toEqual(bits.toSorted((a, b) => a - b))
    expect(DTYPES.map(alignmentRank)).toEqual(DTYPES.map((_, index) => index))
  })

  it('are known by exact spelling only', () => {
    expect(isDtype('BF16')).toBe(true)
    for (const no of ['bf16', 'F8', '', 'toString', '__proto__', 'constructor', 'F32 ']) {
      expect(isDtype(no)).toBe(false)
    }
  })
})

describe('tensorByteLength', () => {
  it('multiplies shape and bits', () => {
    expect(tensorByteLength('F32', [2, 3])).toBe(24)
    expect(tensorByteLength('F64', [])).toBe(8)
    expect(tensorByteLength('F4', [4])).toBe(2)
    expect(tensorByteLength('F6_E2M3', [2, 4])).toBe(6)
    expect(tensorByteLength('C64', [3])).toBe(24)
    expect(tensorByteLength('F32', [5, 0])).toBe(0)
  })

  it('refuses sub-byte tensors that end inside a byte', () => {
    expect(() => tensorByteLength('F4', [3])).toThrow(
      expect.objectContaining({ code: 'not-byte-aligned' }),
    )
    expect(() => tensorByteLength('F6_E3M2', [], { tensor: 't' })).toThrow(
      expect.objectContaining({ code: 'not-byte-aligned', tensor: 't' }),
    )
  })

  it('refuses what is not a dimension', () => {
    for (const bad of [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => tensorByteLength('U8', [bad])).toThrow(
        expect.objectContaining({ code: 'bad-shape' }),
      )
    }
  })

  it('checks every step of the product, in order', () => {
    const huge = 2 ** 40
    expect(tensorByteLength('U8', [0, huge, huge])).toBe(0)
    for (const shape of [[huge, huge, 0], [2 ** 52], [2 ** 60], [0, 2 ** 60]]) {
      expect(() => tensorByteLength('U8', shape)).toThrow(
        expect.objectContaining({ code: 'shape-overflow' }),
      )
    }
  })
})
