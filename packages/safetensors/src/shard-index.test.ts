import { describe, expect, it } from 'vitest'
import { isSafeFileName, parseShardIndex } from './shard-index.ts'

describe('parseShardIndex', () => {
  it('reads text and parsed objects, in order', () => {
    const index = { metadata: { total_size: 12 }, weight_map: { b: 'x.safetensors', a: 'y/z.st' } }
    const expected = [
      ['b', 'x.safetensors'],
      ['a', 'y/z.st'],
    ]
    expect([...parseShardIndex(JSON.stringify(index))]).toEqual(expected)
    expect([...parseShardIndex(index)]).toEqual(expected)
  })

  it('keeps `__proto__` as a name', () => {
    const weights = parseShardIndex('{"weight_map":{"__proto__":"a","constructor":"b"}}')
    expect(weights.get('__proto__')).toBe('a')
    expect(weights.size).toBe(2)
  })

  it('refuses what is not an index', () => {
    const circular: { self?: unknown } = {}
    circular.self = circular
    for (const bad of [
      '',
      '[]',
      '{',
      '{}',
      '1',
      '{"weight_map":[]}',
      '{"weight_map":{}}',
      [],
      circular,
    ]) {
      expect(() => parseShardIndex(bad, 'i')).toThrow(
        expect.objectContaining({ code: 'bad-index', file: 'i' }),
      )
    }
    expect(() => parseShardIndex('{"weight_map":{"a":1}}')).toThrow(
      expect.objectContaining({ code: 'bad-index', tensor: 'a' }),
    )
  })

  it('refuses a tensor that is named twice', () => {
    expect(() => parseShardIndex('{"weight_map":{"a":"x","a":"y"}}')).toThrow(
      expect.objectContaining({ code: 'duplicate-key', tensor: 'a' }),
    )
  })

  it('refuses file names that leave the folder', () => {
    const index = { weight_map: { ok: 'a.st', evil: '../a.st' } }
    expect(() => parseShardIndex(index, 'i')).toThrow(
      expect.objectContaining({ code: 'unsafe-file-name', tensor: 'evil', file: 'i' }),
    )
  })
})

describe('isSafeFileName', () => {
  it.each([
    '../a',
    'a/../../b',
    '..',
    '.',
    './a',
    'a/./b',
    '/etc/passwd',
    '//host/a',
    'a//b',
    'a/',
    '',
    '..\\a',
    'a\\b',
    '\\\\host\\share',
    'C:a',
    'C:/a',
    'https://host/a',
    'file:a',
    'a:stream',
    '%2e%2e/a',
    'a%2Fb',
    'a?b',
    'a#b',
    'a\0b',
    'a\nb',
    '.. /a',
    '.../a',
    'a ',
  ])('refuses %j', (name) => {
    expect(isSafeFileName(name)).toBe(false)
  })

  it.each([
    'model-00001-of-00002.safetensors',
    'sub/model.safetensors',
    '.hidden',
    'modèle 1.st',
    '..a',
  ])('accepts %j', (name) => {
    expect(isSafeFileName(name)).toBe(true)
  })
})
