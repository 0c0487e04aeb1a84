/** A browser without a face: keeps cookies by path, follows nothing by itself. */
export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  /** Where it leads, absolute; empty where it does not. */
  location: string;
}

export interface Visitor {
  get(url: string, headers?: Record<string, string>): Promise<Answer>;
  post(url: string, form: Record<string, string>, headers?: Record<string, string>): Promise<Answer>;
  /** Opens a link from an SMS and follows it to the visit. */
  open(url: string, headers?: Record<string, string>): Promise<Answer & { visitUrl: string }>;
  cookies: { name: string; value: string; path: string; attributes: string }[];
}

export function visitor(): Visitor {
  const cookies: Visitor['cookies'] = [];
  const send = async (url: string, init: RequestInit): Promise<Answer> => {
    const { pathname } = new URL(url);
    const sent = cookies
      .filter(({ path }) => pathname === path || pathname.startsWith(`${path.replace(/\/$/, '')}/`))
      .map(({ name, value }) => `${name}=${value}`);
    const response = await fetch(url, {
      ...init,
      redirect: 'manual',
      headers: { ...(sent.length > 0 ? { cookie: sent.join('; ') } : {}), ...init.headers },
    });
    for (const line of response.headers.getSetCookie()) {
      const [pair = '', ...attributes] = line.split('; ');
      const [name = '', value = ''] = pair.split('=');
      const path = attributes.find((each) => each.startsWith('Path='))?.slice(5) ?? '/';
      const known = cookies.findIndex((each) => each.name === name && each.path === path);
      if (known >= 0) cookies.splice(known, 1);
      cookies.push({ name, value, path, attributes: attributes.join('; ') });
    }
    const to = response.headers.get('location');
    return {
      status: response.status,
      headers: response.headers,
      text: await response.text(),
      location: to === null ? '' : new URL(to, url).href,
    };
  };
  const get: Visitor['get'] = (url, headers = {}) => send(url, { headers });
  return {
    cookies,
    get,
    post: (url, form, headers = {}) =>
      send(url, {
        method: 'POST',
        body: new URLSearchParams(form),
        headers: { 'sec-fetch-site': 'same-origin', ...headers },
      }),
    async open(url, headers = {}) {
      const first = await get(url, headers);
      return { ...(await get(first.location, headers)), visitUrl: first.location };
    },
  };
}
