import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { JsonError, JsonReader } from './json-reader.ts'

type Built = null | boolean | number | string | Built[] | Map<string, Built>

function build(reader: JsonReader): Built {
  switch (reader.peek()) {
    case 'object': {
      const map = new Map<string, Built>()
      reader.readObject((key) => map.set(key, build(reader)))
      return map
    }
    case 'array': {
      const list: Built[] = []
      reader.readArray(() => list.push(build(reader)))
      return list
    }
    case 'string':
      return reader.readString()
    case 'number':
      return Number(reader.readNumber())
    case 'boolean':
      reader.skipValue()
      return true
    case 'null':
      reader.skipValue()
      return null
  }
}

function read(text: string): Built {
  const reader = new JsonReader(text)
  const value = build(reader)
  reader.end()
  return value
}

function skip(text: string): void {
  const reader = new JsonReader(text)
  reader.skipValue()
  reader.end()
}

describe('JsonReader', () => {
  it('reads strings with every escape', () => {
    const text = '"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83D\\uDE00é😀"'
    expect(read(text)).toBe('"\\/\b\f\n\r\té😀é😀')
  })

  it('keeps the text of numbers', () => {
    for (const text of ['0', '-0', '12', '-1.5', '1e2', '1E+2', '2.50e-3', '9007199254740993']) {
      const reader = new JsonReader(text)
      expect(reader.readNumber()).toBe(text)
      reader.end()
    }
  })

  it('keeps the order of keys and the names of Object.prototype', () => {
    const map = read('{"__proto__": 1, "10": 2, "9": 3, "constructor": 4}')
    expect(map).toEqual(
      new Map([
        ['__proto__', 1],
        ['10', 2],
        ['9', 3],
        ['constructor', 4],
      ]),
    )
  })

  it('refuses a key that comes twice, at any depth and however it is spelled', () => {
    for (const [text, key] of [
      ['{"a":1,"a":1}', 'a'],
      ['{"b":{"a":1,"\\u0061":2}}', 'a'],
      ['[{"__proto__":1,"__proto__":1}]', '__proto__'],
    ] as const) {
      expect(() => skip(text)).toThrow(
        expect.objectContaining({ name: 'JsonError', problem: 'duplicate-key', key }),
      )
    }
    expect(() => skip('[{"a":1},{"a":1}]')).not.toThrow()
  })

  it.each([
    '',
    ' ',
    '{',
    '[',
    '"',
    '"a',
    '{"a"}',
    '{"a":}',
    '{"a":1,}',
    '[1,]',
    '[,1]',
    '{,}',
    '{a:1}',
    "{'a':1}",
    '01',
    '+1',
    '1.',
    '.5',
    '1e',
    '-',
    'NaN',
    'Infinity',
    'tru',
    'nulL',
    'undefined',
    '1 2',
    '{} {}',
    '[1 2]',
    '"\u0000"',
    '"a\nb"',
    '"\\x41"',
    '"\\u12g4"',
    '"\\u12"',
    '"\\uD800"',
    '"\\uD800\\u0041"',
    '"\\uDC00"',
    '// c\n1',
    '\uFEFF1',
    '\u00a01',
  ])('refuses %j', (text) => {
    expect(() => skip(text)).toThrow(expect.objectContaining({ problem: 'syntax' }))
  })

  it('refuses deep nesting and does not overflow the stack', () => {
    expect(() => skip('['.repeat(128) + ']'.repeat(128))).not.toThrow()
    expect(() => skip('['.repeat(129) + ']'.repeat(129))).toThrow(JsonError)
    expect(() => skip('['.repeat(1_000_000))).toThrow(JsonError)
    expect(() => skip('{"a":'.repeat(1_000_000))).toThrow(JsonError)
  })

  it('passes over megabytes of digits', () => {
    expect(() => skip('9'.repeat(4_000_000))).not.toThrow()
  })

  it('agrees with JSON.parse on valid text', () => {
    fc.assert(
      fc.property(fc.json(), fc.constantFrom(0, 2), (text, indent) => {
        const spaced = JSON.stringify(JSON.parse(text), null, indent)
        expect(read(spaced)).toEqual(mapped(JSON.parse(spaced)))
      }),
    )
  })

  it('accepts nothing that JSON.parse refuses', () => {
    const pieces = fc.constantFrom(...'{}[]",:0123456789.eE+-truefalsn \\u"\n'.split(''))
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 12 }), (list) => {
        const text = list.join('')
        let error: unknown
        try {
          skip(text)
        } catch (thrown) {
          error = thrown
        }
        if (error === undefined) JSON.parse(text)
        else expect(error).toBeInstanceOf(JsonError)
      }),
      { numRuns: 2000 },
    )
  })
})

function mapped(value: unknown): Built {
  if (Array.isArray(value)) return value.map(mapped)
  if (typeof value === 'object' && value !== null) {
    return new Map(Object.entries(value).map(([key, inner]) => [key, mapped(inner)]))
  }
  if (typeof value === 'boolean') return true
  return value as Built
}
