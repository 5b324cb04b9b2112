import { describe, expect, it } from 'vitest'
import { isAbort, quote, SafetensorsError, withPlace } from './error.ts'

describe('SafetensorsError', () => {
  it('says where, then what', () => {
    const error = new SafetensorsError('hole', 'it starts late.', { file: 'a.st', tensor: 'w' })
    expect(error.message).toBe('a.st: tensor "w": it starts late.')
    expect(error).toMatchObject({
      code: 'hole',
      file: 'a.st',
      tensor: 'w',
      name: 'SafetensorsError',
    })
    expect(error).toBeInstanceOf(Error)
  })

  it('leaves out the parts that are not known', () => {
    expect(new SafetensorsError('too-short', 'what.').message).toBe('what.')
    expect(new SafetensorsError('too-short', 'what.', { file: 'f' }).message).toBe('f: what.')
  })

  it('keeps the cause and the full name, but quotes a short one', () => {
    const cause = new Error('below')
    const tensor = 'x'.repeat(1_000_000)
    const error = new SafetensorsError('bad-entry', 'what.', { tensor, cause })
    expect(error.cause).toBe(cause)
    expect(error.tensor).toBe(tensor)
    expect(error.message.length).toBeLessThan(200)
  })

  it('fills in a place without overriding the one closer to the fault', () => {
    const error = withPlace(new SafetensorsError('hole', 'd', { file: 'near' }), {
      file: 'far',
      tensor: 't',
    })
    expect(error).toMatchObject({ file: 'near', tensor: 't', detail: 'd', code: 'hole' })
    expect(withPlace(error, { file: 'other' })).toBe(error)
  })
})

describe('quote', () => {
  it('escapes control characters', () => {
    expect(quote('a\n"b"\u001b')).toBe('"a\\n\\"b\\"\\u001b"')
  })
})

describe('isAbort', () => {
  it('knows the two errors of an AbortSignal', () => {
    expect(isAbort(AbortSignal.abort().reason)).toBe(true)
    expect(isAbort(new DOMException('late', 'TimeoutError'))).toBe(true)
    expect(isAbort(new Error('other'))).toBe(false)
    expect(isAbort('AbortError')).toBe(false)
  })
})
