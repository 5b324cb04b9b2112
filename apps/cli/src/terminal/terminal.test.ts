import { bytes, count, duration, percent, secondsLeft } from '@lowbit/inspection'
import { expect, it } from 'vitest'
import { bar, createProgress } from './progress.ts'
import { streamText } from './stream-text.ts'
import { markdownTable, table } from './table.ts'

it('figures are short', () => {
  expect([0, 999, 1000, 10_498_408, 5e9].map(bytes)).toEqual([
    '0 B',
    '999 B',
    '1.0 kB',
    '10.5 MB',
    '5.0 GB',
  ])
  expect([0.04, 9.99, 59.6, 75.3, 7260].map(duration)).toEqual([
    '0.0 s',
    '10.0 s',
    '1 min 0 s',
    '1 min 15 s',
    '2 h 1 min',
  ])
  expect([0, 0.5, 0.0123, 0.000001].map(percent)).toEqual(['0 %', '50.0 %', '1.23 %', '1e-4 %'])
  expect([512, 5_248_000, 1.2e9].map(count)).toEqual(['512', '5.2 M', '1.20 G'])
})

it('tables are aligned, numbers to the right', () => {
  const text = table(
    ['name', { title: 'bits', align: 'right' }],
    [
      ['a', '3.148'],
      ['longer', '16'],
    ],
  )
  const lines = text.split('\n').map((line) => line.slice(0, 15))
  expect(lines.slice(1, 3)).toEqual(['  a       3.148', '  longer     16'])
})

it('markdown tables escape bars', () => {
  expect(markdownTable(['a'], [['x | y']])).toBe('| a |\n| --- |\n| x \\| y |\n')
})

it('the bar has the same width at every share', () => {
  for (let i = 0; i <= 100; i++) expect([...bar(i / 100, 10)]).toHaveLength(10)
  expect(bar(0, 4)).toBe('    ')
  expect(bar(1, 4)).toBe('████')
})

it('time left counts from where this run began', () => {
  expect(secondsLeft(10, 0.5, 0.75)).toBe(10)
  expect(secondsLeft(0.2, 0, 0.5)).toBeUndefined()
  expect(secondsLeft(10, 0.5, 0.5)).toBeUndefined()
})

it('draws one line on a terminal, plain lines elsewhere', () => {
  for (const isTTY of [true, false]) {
    let written = ''
    let time = 0
    const stream = { isTTY, columns: 60, write: (text: string) => (written += text) }
    const progress = createProgress('work', stream, () => (time += 1000))
    progress.update(0, 'first')
    progress.update(0.5, 'a very long description of what is going on right now')
    progress.log('a line')
    progress.end()
    if (isTTY) {
      expect(written).toContain('50 %')
      expect(written).toMatch(/a line\n$/)
    } else {
      expect(written).toBe('a line\n')
    }
  }
})

it('holds back characters that are not whole, and loses nothing', () => {
  const all = [...new TextEncoder().encode(' né 😀 ok')]
  const tokenizer = {
    decode: (tokens: readonly number[]) => new TextDecoder().decode(Uint8Array.from(tokens)),
  }
  const pieces: string[] = []
  const stream = streamText(tokenizer, [104, 105], (piece) => pieces.push(piece))
  for (const token of all) stream.push(token)
  expect(stream.end()).toBe(' né 😀 ok')
  expect(pieces.join('')).toBe(' né 😀 ok')
  expect(pieces).toContain('😀')
})

it('gives a broken end as it is', () => {
  const tokenizer = {
    decode: (tokens: readonly number[]) => new TextDecoder().decode(Uint8Array.from(tokens)),
  }
  const stream = streamText(tokenizer, [], () => {})
  stream.push(0xf0)
  expect(stream.end()).toBe('\ufffd')
})
