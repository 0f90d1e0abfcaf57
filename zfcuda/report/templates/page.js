"use strict";
(() => {
  const all = (root, selector) => Array.from(root.querySelectorAll(selector));
  const data = (root) => JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  const signal = (size) => size[0] === 1 && size[1] > 1; // counted in samples
  const percent = (value) => (100 * value).toFixed(1) + " %";

  // ---- Light and dark
  document.querySelector(".theme").addEventListener("click", () => {
    const root = document.documentElement;
    const now = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
  });

  // ---- Tables that sort: first click descending for numbers, ascending for words
  for (const table of all(document, "table.sortable")) {
    const heads = all(table, "th");
    const body = table.tBodies[0];
    heads.forEach((head, column) => {
      const cells = () => Array.from(body.rows, (row) => row.cells[column]);
      const numeric = cells().some((cell) => cell.dataset.sort !== undefined);
      if (numeric) head.classList.add("right");
      head.firstElementChild.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const direction = before ? (before === "ascending" ? "descending" : "ascending") : numeric ? "descending" : "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", direction);
        const sign = direction === "ascending" ? 1 : -1;
        const compare = (a, b) => {
          const x = a.cells[column], y = b.cells[column];
          if (!numeric) return sign * x.textContent.localeCompare(y.textContent, undefined, { numeric: true });
          if (x.dataset.sort === undefined || y.dataset.sort === undefined) // cells without a number go last
            return (x.dataset.sort === undefined) - (y.dataset.sort === undefined);
          return sign * (x.dataset.sort - y.dataset.sort);
        };
        body.append(...Array.from(body.rows).sort(compare));
      });
    });
  }

  // ---- A run of a study unfolds when its link is followed
  const unfold = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();

  // ---- A box of the drawn network leads to its layer's gallery, in the same run
  for (const link of all(document, ".drawing a")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const run = link.closest("details") || document;
      const gallery = all(run, ".gallery").find((one) => one.dataset.layer === link.dataset.layer);
      if (gallery) gallery.scrollIntoView();
    });
  }

  // ---- Search over galleries: every word must occur in the map's layer, number or classes
  const search = document.querySelector(".search");
  search.hidden = !document.querySelector(".gallery");
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let first = null;
    for (const gallery of all(document, ".gallery")) {
      let shown = 0;
      for (const map of all(gallery, ".map")) {
        const terms = map.dataset.find.toLowerCase().split(" ");
        const fits = words.every((word) => /^\d+$/.test(word) ? terms.includes(word) : map.dataset.find.toLowerCase().includes(word));
        map.hidden = !fits;
        shown += fits;
      }
      gallery.querySelector(".empty").hidden = shown > 0;
      if (shown && words.length && !first) first = gallery;
    }
    const folded = first && first.closest("details");
    if (folded) folded.open = true;
    if (first) first.scrollIntoView({ block: "start" });
  });

  // ---- One winner of a gallery, opened
  const dialog = document.querySelector("dialog.winner");
  let open = null; // { layer, map, rank, images }

  const place = (canvas, address, pixels, view, whole) => {
    // Shows the rectangle `view` = [top, left, height, width] of a picture of `whole` = [height, width].
    canvas.replaceChildren();
    canvas.style.aspectRatio = view[3] + " / " + view[2];
    const image = document.createElement("img");
    image.src = address;
    image.alt = "";
    if (pixels) image.className = "pixels";
    image.style.width = (100 * whole[1]) / view[3] + "%";
    image.style.height = (100 * whole[0]) / view[2] + "%";
    image.style.top = (-100 * view[0]) / view[2] + "%";
    image.style.left = (-100 * view[1]) / view[3] + "%";
    canvas.append(image);
  };

  const show = () => {
    const { gallery, map, rank } = open;
    const winner = map.winners[rank];
    const image = gallery.images[winner.image];
    const [height, width] = gallery.tile;
    const across = map.columns;
    const tileView = [Math.floor(rank / across) * (height + gallery.gap), (rank % across) * (width + gallery.gap), height, width];
    dialog.querySelector(".what").textContent = gallery.layer + ", map " + map.number + ", place " + (rank + 1) + " of " + map.winners.length;
    const canvas = dialog.querySelector(".canvas.image");
    const drawn = image.drawn || image.size; // of a signal, which is one pixel high, the picture is higher
    place(canvas, image.uri, gallery.pixels, [0, 0, drawn[0], drawn[1]], drawn);
    const box = document.createElement("i");
    const [top, left, boxHeight, boxWidth] = winner.window;
    box.style.top = (100 * top) / image.size[0] + "%";
    box.style.left = (100 * left) / image.size[1] + "%";
    box.style.height = (100 * boxHeight) / image.size[0] + "%";
    box.style.width = (100 * boxWidth) / image.size[1] + "%";
    canvas.append(box);
    place(dialog.querySelector(".canvas.patch"), open.figure.querySelector('[data-side="patch"] img').src, gallery.pixels, tileView, map.size);
    place(dialog.querySelector(".canvas.projection"), open.figure.querySelector('[data-side="projection"] img').src, gallery.pixels, tileView, map.size);
    dialog.querySelector(".facts").textContent = "activation " + winner.value.toPrecision(4) + " at " + (signal(image.size) ? "place " : "row " + winner.position[0] + ", column ") + winner.position[1] +
      " of the map · projection drawn to ±" + map.swings[rank].toPrecision(2) + " · " + image.name + (image.label ? " · " + image.label : "") + " · " +
      (signal(image.size) ? "samples " + left + "–" + (left + boxWidth - 1) + " of " + image.size[1]
        : "pixels " + top + "–" + (top + boxHeight - 1) + " down, " + left + "–" + (left + boxWidth - 1) + " across");
  };
  const step = (by) => {
    open.rank = (open.rank + by + open.map.winners.length) % open.map.winners.length;
    show();
  };
  for (const root of all(document, ".gallery")) {
    let gallery = null;
    root.addEventListener("click", (event) => {
      const button = event.target.closest(".pair button");
      if (!button) return;
      gallery = gallery || data(root);
      const figure = button.closest(".map");
      const map = gallery.maps[figure.dataset.map];
      let rank = 0;
      if (event.detail > 0) { // a pointer, not the keyboard: which of the nine?
        const box = button.getBoundingClientRect();
        const rows = Math.ceil(map.winners.length / map.columns);
        const row = Math.min(rows - 1, Math.floor(((event.clientY - box.top) / box.height) * rows));
        const column = Math.min(map.columns - 1, Math.floor(((event.clientX - box.left) / box.width) * map.columns));
        rank = Math.min(map.winners.length - 1, row * map.columns + column);
      }
      open = { gallery, map, rank, figure };
      show();
      dialog.showModal();
    });
  }
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.querySelector(".previous").addEventListener("click", () => step(-1));
  dialog.querySelector(".next").addEventListener("click", () => step(1));
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });

  // ---- Occlusion explorer: every map and the image show the same position of the square
  for (const root of all(document, ".explorer")) {
    const o = data(root);
    const [rows, columns] = [o.probability.length, o.probability[0].length];
    const square = root.querySelector(".square");
    const readout = root.querySelector(".readout");
    let at = [0, 0];
    const shown = o.followed === "output" ? (value) => value.toFixed(3) : percent;
    const percentOf = (part, whole) => (100 * part) / whole + "%";
    const move = (row, column) => {
      at = [Math.max(0, Math.min(rows - 1, row)), Math.max(0, Math.min(columns - 1, column))];
      const top = at[0] * o.stride[0], left = at[1] * o.stride[1];
      const bottom = Math.min(o.image_size[0], top + o.size[0]), right = Math.min(o.image_size[1], left + o.size[1]);
      square.style.top = percentOf(top, o.image_size[0]);
      square.style.left = percentOf(left, o.image_size[1]);
      square.style.height = percentOf(bottom - top, o.image_size[0]);
      square.style.width = percentOf(right - left, o.image_size[1]);
      for (const cell of all(root, ".cell")) {
        cell.style.top = percentOf(at[0], rows);
        cell.style.left = percentOf(at[1], columns);
        cell.style.height = percentOf(1, rows);
        cell.style.width = percentOf(1, columns);
      }
      const rowsCovered = signal(o.image_size) ? "samples " : "rows " + top + "–" + (bottom - 1) + ", columns ";
      const covered = "covered " + rowsCovered + left + "–" + (right - 1);
      readout.textContent = covered + ": " + o.what + " " + shown(o.probability[at[0]][at[1]]) + " (" + shown(o.baseline) +
        " with nothing covered)" + (o.classes ? "; most probable: " + o.classes[o.prediction[at[0]][at[1]]] : "");
      root.classList.add("live");
    };
    for (const panel of all(root, "[data-panel]")) {
      const stage = panel.querySelector(".stage");
      const follow = (event) => {
        const box = stage.getBoundingClientRect();
        const y = (event.clientY - box.top) / box.height, x = (event.clientX - box.left) / box.width;
        if (panel.dataset.panel === "map") move(Math.floor(y * rows), Math.floor(x * columns));
        else move( // on the image, the square's middle follows the pointer
          Math.round((y * o.image_size[0] - o.size[0] / 2) / o.stride[0]),
          Math.round((x * o.image_size[1] - o.size[1] / 2) / o.stride[1]));
      };
      stage.addEventListener("pointermove", follow);
      stage.addEventListener("pointerdown", follow);
      panel.addEventListener("keydown", (event) => {
        const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
        if (!by) return;
        event.preventDefault();
        move(at[0] + by[0], at[1] + by[1]);
      });
    }
  }

  // ---- Sliders through frames
  for (const root of all(document, ".slider")) {
    const frames = all(root, ".frames img");
    const input = root.querySelector("input");
    input.addEventListener("input", () => {
      frames.forEach((frame, index) => { frame.hidden = index !== Number(input.value); });
      root.querySelector("output").textContent = frames[input.value].dataset.label;
    });
  }
})();
