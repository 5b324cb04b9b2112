import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it } from 'vitest'
import { keptChoices } from './kept-choices.ts'

it('keeps values over runs, and takes a broken file or a forbidden place for an empty one', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'lowbit-kept-'))
  try {
    const file = path.join(folder, 'deep', 'devices.json')
    expect(keptChoices(file).getItem('a')).toBeNull()
    keptChoices(file).setItem('a', '1')
    keptChoices(file).setItem('b', '2')
    expect(keptChoices(file).getItem('a')).toBe('1')
    expect(JSON.parse(readFileSync(file, 'utf8'))).toEqual({ a: '1', b: '2' })
    writeFileSync(file, '{"a": 3')
    expect(keptChoices(file).getItem('a')).toBeNull()
    const inside = path.join(file, 'no-folder.json')
    keptChoices(inside).setItem('a', '1')
    expect(keptChoices(inside).getItem('a')).toBeNull()
  } finally {
    rmSync(folder, { recursive: true })
  }
})
