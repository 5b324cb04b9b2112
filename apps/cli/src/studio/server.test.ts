/** The studio's server: what it gives, and what it turns away. */

import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import type { AddressInfo } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { serveStudio } from './server.ts'

const place = mkdtempSync(path.join(os.tmpdir(), 'lowbit-studio-'))
const inside = (name: string): string => path.join(place, name)
let port = 0
let close: () => void

beforeAll(async () => {
  for (const folder of ['page', 'demo', 'model', 'secret']) {
    const { mkdirSync } = await import('node:fs')
    mkdirSync(inside(folder))
  }
  writeFileSync(inside('page/index.html'), '<!doctype html>page')
  writeFileSync(inside('demo/config.json'), '{}')
  writeFileSync(inside('model/config.json'), '{"a":1}')
  writeFileSync(inside('model/model.safetensors'), '0123456789')
  writeFileSync(inside('secret/key.txt'), 'secret')
  symlinkSync(inside('model/config.json'), inside('model/tokenizer.json'))
  const models = new Map([['my model', inside('model')]])
  const server = await serveStudio({ page: inside('page'), demo: inside('demo'), models }, 0)
  port = (server.address() as AddressInfo).port
  expect((server.address() as AddressInfo).address).toBe('127.0.0.1')
  close = () => server.close()
})

afterAll(() => {
  close()
  rmSync(place, { recursive: true })
})

interface Answer {
  readonly status: number
  readonly headers: Record<string, unknown>
  readonly body: string
}

/** A path as it is written, which fetch would tidy up. */
const ask = (
  target: string,
  headers: Record<string, string> = {},
  method = 'GET',
): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const sent = request(
      {
        host: '127.0.0.1',
        port,
        path: target,
        method,
        headers: { host: `localhost:${port}`, ...headers },
      },
      (response) => {
        let body = ''
        response.on('data', (chunk) => {
          body += chunk
        })
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body }),
        )
      },
    )
    sent.on('error', reject)
    sent.end()
  })

describe('gives', () => {
  it('the page, isolated and with a policy without eval', async () => {
    const { status, body, headers } = await ask('/')
    expect([status, body]).toEqual([200, '<!doctype html>page'])
    expect(headers['cross-origin-opener-policy']).toBe('same-origin')
    expect(headers['cross-origin-embedder-policy']).toBe('require-corp')
    expect(headers['content-security-policy']).toContain("script-src 'self' 'wasm-unsafe-eval'")
    expect(headers['content-security-policy']).not.toContain("'unsafe-eval'")
  })

  it('the demo, the names of folders, and their files in ranges', async () => {
    expect((await ask('/demo/config.json')).body).toBe('{}')
    expect(JSON.parse((await ask('/models/index.json')).body)).toEqual(['my model'])
    expect((await ask('/models/my%20model/config.json')).body).toBe('{"a":1}')
    const part = await ask('/models/my%20model/model.safetensors', { range: 'bytes=2-4' })
    expect([part.status, part.body]).toEqual([206, '234'])
  })

  it('files that a hub’s cache keeps as links', async () => {
    expect((await ask('/models/my%20model/tokenizer.json')).body).toBe('{"a":1}')
  })
})

describe('turns away', () => {
  it.each([
    '/models/my%20model/../../secret/key.txt',
    '/models/my%20model/..%2F..%2Fsecret%2Fkey.txt',
    '/models/../secret/key.txt',
    '/models/my%20model/%2e%2e/%2e%2e/secret/key.txt',
    '/../secret/key.txt',
    '/%2e%2e/secret/key.txt',
    '/demo/..%2fsecret/key.txt',
    '/models/other/config.json',
    '/models/%/config.json',
    '//[',
    '//',
  ])('%s', async (target) => {
    const { status, body } = await ask(target)
    expect(status).toBe(404)
    expect(body).not.toContain('secret')
  })

  it('names that resolve to this machine, and other pages', async () => {
    expect((await ask('/', { host: `evil.example:${port}` })).status).toBe(403)
    expect((await ask('/', { host: 'localhost:1' })).status).toBe(403)
    expect((await ask('/', { origin: 'http://evil.example' })).status).toBe(403)
    expect((await ask('/models/index.json', { 'sec-fetch-site': 'cross-site' })).status).toBe(403)
    expect((await ask('/', { origin: `http://localhost:${port}` })).status).toBe(200)
  })

  it('whoever wants to write', async () => {
    expect((await ask('/', {}, 'POST')).status).toBe(405)
    expect((await ask('/models/my%20model/config.json', {}, 'DELETE')).status).toBe(405)
  })
})
