import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { expect, it } from 'vitest'
import { temporaryFolder } from '../testing/run-cli.ts'
import { takeLock } from './lock.ts'
import { prepareOutput } from './output-folder.ts'

it('a lock of a living process is respected, of a dead one taken over', async () => {
  const file = path.join(temporaryFolder(), 'x.lock')
  const release = await takeLock(file)
  await expect(takeLock(file)).rejects.toThrow(`process ${process.pid} is working`)
  await release()
  expect(existsSync(file)).toBe(false)
  const host = os.hostname()
  for (const stale of [
    // No process has this number; a process of this number that began at another time; no owner at all.
    JSON.stringify({ pid: 2 ** 30, host }),
    JSON.stringify({ pid: process.pid, host, started: '1' }),
    'half a wri',
  ]) {
    if (stale.includes('started') && process.platform !== 'linux') continue
    writeFileSync(file, stale)
    const again = await takeLock(file)
    expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ pid: process.pid })
    await again()
  }
})

it('a lock of another machine is respected', async () => {
  const file = path.join(temporaryFolder(), 'x.lock')
  writeFileSync(file, JSON.stringify({ pid: 1, host: 'elsewhere' }))
  await expect(takeLock(file)).rejects.toThrow(/process 1 on elsewhere/)
})

it('refuses a folder with files, a file, and the source', async () => {
  const folder = temporaryFolder()
  const out = path.join(folder, 'out')
  mkdirSync(out)
  writeFileSync(path.join(out, 'mine'), '')
  await expect(prepareOutput({ out, overwrite: false })).rejects.toMatchObject({
    code: 'exists',
    option: 'out',
  })
  const file = path.join(out, 'mine')
  await expect(prepareOutput({ out: file, overwrite: true })).rejects.toThrow(/is a file/)
  await expect(prepareOutput({ out, overwrite: true, source: out })).rejects.toThrow(/itself/)
  await expect(
    prepareOutput({ out: path.join(file, 'below'), overwrite: false }),
  ).rejects.toMatchObject({ option: 'out' })
  expect(readdirSync(folder)).toEqual(['out'])
})

it('keeps what a stopped job goes on with and drops half-written files', async () => {
  const folder = temporaryFolder()
  const out = path.join(folder, 'out')
  const partial = `${out}.partial`
  mkdirSync(partial)
  const names = ['journal.json', 'block-00000.part.safetensors', 'model.safetensors.writing']
  for (const name of [...names, 'model-00001-of-00002.safetensors']) {
    writeFileSync(path.join(partial, name), '')
  }
  const output = await prepareOutput({ out, overwrite: false })
  expect(readdirSync(partial).sort()).toEqual(['block-00000.part.safetensors', 'journal.json'])
  await output.publish()
  await output.release()
  expect(readdirSync(folder)).toEqual(['out'])
})
