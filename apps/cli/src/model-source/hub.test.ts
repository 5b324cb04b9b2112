/** Hub ids, against a server on this machine that answers as the hub does. */

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, it, onTestFinished } from 'vitest'
import { demoFile } from '../testing/demo-copy.ts'
import { runJson, temporaryFolder } from '../testing/run-cli.ts'

const FILES = new Map<string, Buffer>(
  ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'].map((name) => [
    name,
    readFileSync(demoFile(name)),
  ]),
)
FILES.set('pytorch_model.bin', Buffer.from('not wanted'))

const infoOf = (name: string) => {
  const content = FILES.get(name)!
  const oid = createHash('sha1').update(content).digest('hex')
  return { type: 'file', path: name, size: content.length, oid, lastCommit: { id: '1'.repeat(40) } }
}

/** What of the hub's interface a download uses. */
async function startHub(): Promise<{ url: string; server: Server; asked: string[] }> {
  const asked: string[] = []
  const server = createServer((request, response) => {
    const url = request.url ?? ''
    asked.push(url)
    const json = (value: unknown): void => {
      response.setHeader('content-type', 'application/json')
      response.end(JSON.stringify(value))
    }
    if (url.startsWith('/api/models/some/demo/tree/main')) {
      return json([...FILES.keys()].map(infoOf))
    }
    if (url.startsWith('/api/models/some/demo/paths-info/main')) {
      let body = ''
      request.on('data', (chunk) => {
        body += chunk
      })
      request.on('end', () => json((JSON.parse(body) as { paths: string[] }).paths.map(infoOf)))
      return
    }
    const content = FILES.get(url.replace('/some/demo/resolve/main/', ''))
    if (!content) {
      response.statusCode = 404
      return json({ error: 'Repository not found' })
    }
    const range = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? '')
    const [from, to] = range ? [Number(range[1]), Number(range[2])] : [0, content.length - 1]
    response.statusCode = range ? 206 : 200
    response.setHeader('etag', `"${createHash('sha1').update(content).digest('hex')}"`)
    response.setHeader('content-type', 'application/octet-stream')
    if (range) response.setHeader('content-range', `bytes ${from}-${to}/${content.length}`)
    response.end(content.subarray(from, to + 1))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server, asked }
}

it('downloads what is needed, once, and works from the cache without a network', async () => {
  const { url, server, asked } = await startHub()
  const env = { HF_ENDPOINT: url, HF_HUB_CACHE: temporaryFolder() }
  const first = await runJson(['inspect', 'some/demo'], { env })
  expect(first.json).toMatchObject({ model: 'some/demo', format: 'dense', layers: 6 })
  expect(asked.some((path) => path.endsWith('/model.safetensors'))).toBe(true)
  expect(asked.some((path) => path.includes('pytorch_model.bin'))).toBe(false)

  asked.length = 0
  expect((await runJson(['inspect', 'some/demo'], { env })).code).toBe(0)
  expect(asked.some((path) => path.includes('/resolve/'))).toBe(false)

  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
  const offline = await runJson(['inspect', 'some/demo'], { env })
  expect(offline.code).toBe(0)
  expect(offline.stderr).toMatch(/^warning: the hub can't be asked .*\n$/)
})

it('says that the hub was tried, and that a folder works too', async () => {
  const { url } = await startHub()
  for (const [endpoint, why] of [
    [url, /HTTP 404/],
    ['http://127.0.0.1:9', /fetch failed/],
  ] as const) {
    const env = { HF_ENDPOINT: endpoint, HF_HUB_CACHE: temporaryFolder() }
    const { code, json } = await runJson(['inspect', 'some/other'], { env })
    expect(code).toBe(1)
    const { error } = json as { error: { code: string; message: string } }
    expect(error.code).toBe('hub-failed')
    expect(error.message).toMatch(why)
    expect(error.message).toMatch(/no folder some\/other.*works without a network/)
  }
})
