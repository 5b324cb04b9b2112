import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { type HttpSourceOptions, httpSource } from './http-source.ts'
import { openSafetensors } from './open.ts'

const content = Uint8Array.from({ length: 100_000 }, (_, index) => index % 251)
const servers: Server[] = []

afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections()
    server.close()
  }
})

type Handler = (request: IncomingMessage, response: ServerResponse) => void

async function serve(handler: Handler): Promise<URL> {
  const server = createServer(handler)
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return new URL(`http://127.0.0.1:${port}/model.safetensors?token=secret`)
}

interface Ways {
  readonly hideTotal?: boolean
  readonly hideRange?: boolean
  readonly etag?: () => string
  readonly shift?: number
}

/** Answers ranges of `bytes` as a good server does, or as the given ways of a bad one. */
function ranges(bytes: Uint8Array, log: string[] = [], ways: Ways = {}): Handler {
  return (request, response) => {
    log.push(`${request.method} ${request.headers.range ?? ''}`.trim())
    if (request.method === 'HEAD') {
      response.writeHead(200, { 'content-length': bytes.length }).end()
      return
    }
    const [, from, to] = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? '') ?? []
    const begin = Number(from) + (ways.shift ?? 0)
    const end = Math.min(Number(to) + 1, bytes.length)
    if (begin >= bytes.length) {
      response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end()
      return
    }
    const total = ways.hideTotal ? '*' : bytes.length
    response.writeHead(206, {
      ...(ways.hideRange ? {} : { 'content-range': `bytes ${begin}-${end - 1}/${total}` }),
      ...(ways.etag && { etag: ways.etag() }),
    })
    response.end(bytes.subarray(begin, end))
  }
}

async function refused(handler: Handler, options?: HttpSourceOptions) {
  const url = await serve(handler)
  const error = await httpSource(url, options).then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  expect(error).toMatchObject({ name: 'SafetensorsError', file: expect.stringMatching(/^http/) })
  expect(String(error)).not.toContain('secret')
  return error
}

describe('httpSource', () => {
  it('learns the size with the first bytes and reads ranges', async () => {
    const log: string[] = []
    const source = await httpSource(await serve(ranges(content, log)))
    expect(source.size).toBe(content.length)
    expect([...(await source.read(0, 8))]).toEqual([...content.subarray(0, 8)])
    expect(log).toEqual(['GET bytes=0-65535'])
    const far = await source.read(70_000, 20_000)
    expect(Buffer.compare(far, content.subarray(70_000, 90_000))).toBe(0)
    const across = await source.read(65_000, 1_000)
    expect(Buffer.compare(across, content.subarray(65_000, 66_000))).toBe(0)
    expect(log.slice(1)).toEqual(['GET bytes=70000-89999', 'GET bytes=65000-65999'])
  })

  it('opens a whole model from a URL', async () => {
    const json = '{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}'
    const bytes = Uint8Array.from([json.length, 0, 0, 0, 0, 0, 0, 0, ...Buffer.from(json), 7, 8, 9])
    const url = await serve(ranges(bytes))
    const file = await openSafetensors(url)
    expect([...(await file.read('a'))]).toEqual([7, 8, 9])
    expect(file.name).toBe(`http://${url.host}/model.safetensors`)
  })

  it('knows an empty file', async () => {
    const source = await httpSource(await serve(ranges(new Uint8Array(0))))
    expect(source.size).toBe(0)
  })

  it('refuses a server that ignores ranges, without reading the body', async () => {
    let sent = 0
    const endless: Handler = (_, response) => {
      response.writeHead(200)
      const timer = setInterval(() => {
        sent += 1000
        response.write(new Uint8Array(1000))
      }, 1)
      response.on('close', () => clearInterval(timer))
    }
    expect(await refused(endless)).toMatchObject({ code: 'range-ignored' })
    expect(sent).toBeLessThan(1_000_000)
  })

  it('refuses other answers with their status', async () => {
    for (const status of [403, 404, 416, 500]) {
      const error = await refused((_, response) => response.writeHead(status).end('no'))
      expect(error).toMatchObject({
        code: 'http-status',
        detail: expect.stringContaining(`${status}`),
      })
    }
  })

  it('asks for the size where the range answer hides it', async () => {
    for (const ways of [{ hideTotal: true }, { hideRange: true }]) {
      const log: string[] = []
      const source = await httpSource(await serve(ranges(content, log, ways)))
      expect(source.size).toBe(content.length)
      expect(log.at(-1)).toBe('HEAD')
      expect([...(await source.read(99_998, 2))]).toEqual([...content.subarray(99_998)])
    }
    const log: string[] = []
    const url = await serve(ranges(content, log, { hideRange: true }))
    expect((await httpSource(url, { size: 5 })).size).toBe(5)
    expect(log).toEqual(['GET bytes=0-65535'])
  })

  it('refuses a server that shows no size at all', async () => {
    const plain = ranges(content, [], { hideTotal: true })
    const error = await refused((request, response) => {
      if (request.method === 'HEAD') response.writeHead(405).end()
      else plain(request, response)
    })
    expect(error).toMatchObject({ code: 'size-unknown' })
  })

  it('refuses a file that changes meanwhile', async () => {
    let version = 1
    const url = await serve(ranges(content, [], { etag: () => `"${version}"` }))
    const source = await httpSource(url)
    await source.read(80_000, 1)
    version = 2
    await expect(source.read(80_000, 1)).rejects.toMatchObject({ code: 'source-changed' })

    let bytes = content
    const growing = await serve((request, response) => ranges(bytes)(request, response))
    const grown = await httpSource(growing)
    bytes = new Uint8Array(100_001)
    await expect(grown.read(80_000, 1)).rejects.toMatchObject({ code: 'source-changed' })
  })

  it('refuses answers that are not the range asked for', async () => {
    expect(await refused(ranges(content, [], { shift: 1 }))).toMatchObject({ code: 'short-read' })
    const long: Handler = (request, response) => {
      if (request.headers.range === 'bytes=0-7') return ranges(content)(request, response)
      response.writeHead(206).end(new Uint8Array(1000))
    }
    const source = await httpSource(await serve(long), { prefetchBytes: 8 })
    await expect(source.read(10, 999)).rejects.toMatchObject({ code: 'short-read' })
    await expect(source.read(10, 1001)).rejects.toMatchObject({ code: 'short-read' })
  })

  it('tells of a connection that breaks', async () => {
    const breaking: Handler = (_, response) => {
      response.writeHead(206, { 'content-length': 1000, 'content-range': 'bytes 0-999/5000' })
      response.write(new Uint8Array(10), () => response.destroy())
    }
    expect(await refused(breaking)).toMatchObject({ code: 'source-failed' })
    expect(await refused((request) => request.socket.destroy())).toMatchObject({
      code: 'source-failed',
    })
  })

  it('sends the given headers through the given fetch', async () => {
    const seen: string[] = []
    const url = await serve((request, response) => {
      seen.push(String(request.headers.authorization))
      ranges(content)(request, response)
    })
    let calls = 0
    await httpSource(url, {
      headers: { authorization: 'Bearer x' },
      fetch: (input, init) => {
        calls++
        return fetch(input, init)
      },
    })
    expect(seen).toEqual(['Bearer x'])
    expect(calls).toBe(1)
  })

  it('ends when the signal aborts', async () => {
    const controller = new AbortController()
    const url = await serve(() => controller.abort())
    await expect(httpSource(url, { signal: controller.signal })).rejects.toMatchObject({
      name: 'AbortError',
    })
  })

  it('refuses addresses that are not http', async () => {
    for (const url of ['model.safetensors', 'file:///m', 'data:,x', 'blob:x']) {
      await expect(httpSource(url)).rejects.toMatchObject({ code: 'bad-source' })
    }
  })
})
